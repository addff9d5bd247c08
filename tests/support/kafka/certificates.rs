//! A certificate authority made for one test run, with a broker's and a client's certificate.

use std::path::{Path, PathBuf};
use std::process::Command;

/// PEM files in one folder.
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    pub fn make(folder: &Path) -> Certificates {
        std::fs::create_dir_all(folder).unwrap();
        let made = Certificates { folder: folder.to_owned() };
        made.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=weir-test-ca -keyout ca.key -out ca.pem");
        made.sign("broker", "subjectAltName=IP:127.0.0.1,DNS:localhost");
        made.sign("client", "extendedKeyUsage=clientAuth");
        let pem = [made.key_of("broker"), made.folder.join("broker.pem")].map(|path| std::fs::read(path).unwrap());
        std::fs::write(made.broker_keystore(), pem.concat()).unwrap();
        made
    }

    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    pub fn client_certificate(&self) -> PathBuf {
        self.folder.join("client.pem")
    }

    pub fn client_key(&self) -> PathBuf {
        self.key_of("client")
    }

    /// For `127.0.0.1` and `localhost`; any server's of a test.
    pub fn server_certificate(&self) -> PathBuf {
        self.folder.join("broker.pem")
    }

    pub fn server_key(&self) -> PathBuf {
        self.key_of("broker")
    }

    /// Key and certificate in one file, as the broker wants them.
    pub fn broker_keystore(&self) -> PathBuf {
        self.folder.join("broker.keystore.pem")
    }

    fn key_of(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.key"))
    }

    fn sign(&self, name: &str, extension: &str) {
        std::fs::write(self.folder.join("extension"), extension).unwrap();
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile extension -out {name}.pem"
        ));
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(&self.folder).output();
        let output = output.unwrap_or_else(|error| panic!("cannot run openssl: {error}"));
        assert!(output.status.success(), "openssl {arguments}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}
