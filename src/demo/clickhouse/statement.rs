//! Finds the shape of a statement: is it an INSERT with data, and where does the data begin?
//!
//! The engine as a library takes no data beside the text (and cuts data inside it at the first special byte), so
//! such an INSERT is rewritten to read the data from a file. Knows strings, quoted names, comments and brackets;
//! leaves every judgement about the rest of the text to the engine.

/// A statement, and the data that came inside its text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Statement {
    /// Runs as it is.
    Plain,
    /// `INSERT INTO head [settings] FORMAT format`, with data behind the text's `data_start`.
    Insert { head: String, settings: String, format: String, data_start: usize },
}

impl Statement {
    /// Reads the shape of `text`. What comes after the format's name is data and may be any bytes.
    pub fn of(text: &[u8]) -> Statement {
        let mut words = Words { text, at: 0, depth: 0 };
        let Some(first) = words.next().filter(|word| word.is("INSERT")) else { return Statement::Plain };
        let mut settings_start = None;
        while let Some(word) = words.next() {
            if word.is("SETTINGS") {
                settings_start = Some(word.start);
            } else if word.is("FORMAT") {
                let Some(format) = words.next() else { return Statement::Plain };
                return insert(text, first.start, settings_start, word.start, format.text(), format.end);
            } else if word.is("VALUES") {
                return insert(text, first.start, settings_start, word.start, "Values", word.end);
            } else if word.is("SELECT") || word.is("WITH") || word.is("INFILE") || word.is("WATCH") {
                return Statement::Plain;
            }
        }
        Statement::Plain
    }

    /// The same INSERT, reading its data from `file`.
    pub fn from_file(head: &str, settings: &str, format: &str, file: &str) -> String {
        // On lines of their own: the head may end in a comment.
        format!("{head}\nFROM INFILE '{}' COMPRESSION 'none' {settings}\nFORMAT {format}", quote(file))
    }
}

/// The text inside single quotes.
pub fn quote(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

fn insert(
    text: &[u8],
    start: usize,
    settings_start: Option<usize>,
    end: usize,
    format: &str,
    data_start: usize,
) -> Statement {
    let head_end = settings_start.unwrap_or(end);
    let part = |from: usize, to: usize| String::from_utf8_lossy(&text[from..to]).trim().to_owned();
    // As the server does: blanks and one line break between the format's name and the data are not data.
    let blanks = text[data_start..].iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
    let mut data_start = data_start + blanks;
    if text.get(data_start) == Some(&b'\n') {
        data_start += 1;
    }
    Statement::Insert {
        head: part(start, head_end),
        settings: part(head_end, end),
        format: format.to_owned(),
        data_start,
    }
}

/// A bare word outside of strings, comments and brackets.
struct Word<'a> {
    whole: &'a [u8],
    start: usize,
    end: usize,
}

impl Word<'_> {
    fn is(&self, name: &str) -> bool {
        self.whole[self.start..self.end].eq_ignore_ascii_case(name.as_bytes())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.whole[self.start..self.end]).expect("a bare word is ASCII")
    }
}

struct Words<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'\'' | b'"' | b'`' => self.skip_quoted(byte),
                b'-' if self.text[self.at..].starts_with(b"--") => self.skip_past(b"\n"),
                b'/' if self.text[self.at..].starts_with(b"/*") => self.skip_past(b"*/"),
                b'(' => self.step(1),
                b')' => self.step(-1),
                byte if is_word(byte) => {
                    let start = self.at;
                    self.at += self.text[start..].iter().take_while(|byte| is_word(**byte)).count();
                    if self.depth == 0 {
                        return Some(Word { whole: self.text, start, end: self.at });
                    }
                }
                _ => self.at += 1,
            }
        }
        None
    }
}

impl Words<'_> {
    fn step(&mut self, by: isize) {
        self.depth = self.depth.saturating_add_signed(by);
        self.at += 1;
    }

    fn skip_quoted(&mut self, quote: u8) {
        self.at += 1;
        while let Some(&byte) = self.text.get(self.at) {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == quote {
                return;
            }
        }
    }

    fn skip_past(&mut self, end: &[u8]) {
        let found = self.text[self.at..].windows(end.len()).position(|window| window == end);
        self.at = found.map_or(self.text.len(), |place| self.at + place + end.len());
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, String, String) {
        match Statement::of(text.as_bytes()) {
            Statement::Insert { head, settings, format, data_start } => {
                (head, settings, format, text[data_start..].to_owned())
            }
            Statement::Plain => panic!("no insert with data: {text}"),
        }
    }

    #[test]
    fn an_insert_with_a_format_is_cut_at_its_data() {
        let got = parts("INSERT INTO `a(b`.t (x, format) SETTINGS k='FORMAT' FORMAT JSONEachRow\n{\"x\":1}");
        let want = ("INSERT INTO `a(b`.t (x, format)", "SETTINGS k='FORMAT'", "JSONEachRow", "{\"x\":1}");
        assert_eq!(got, (want.0.into(), want.1.into(), want.2.into(), want.3.into()));
    }

    #[test]
    fn values_are_data_too() {
        let got = parts("/* FORMAT x */ insert into t -- SELECT\n (a, b) values (1, 'SELECT'), (2, '')");
        assert_eq!((got.2.as_str(), got.3.as_str()), ("Values", "(1, 'SELECT'), (2, '')"));
    }

    #[test]
    fn what_carries_no_data_runs_as_it_is() {
        for text in [
            "SELECT 1 FORMAT JSON",
            "INSERT INTO t SELECT 1 FORMAT Null",
            "INSERT INTO t (a) SETTINGS x=1 SELECT 2",
            "INSERT INTO t FROM INFILE 'f' FORMAT Native",
            "INSERT INTO t",
            "",
        ] {
            assert_eq!(Statement::of(text.as_bytes()), Statement::Plain, "{text}");
        }
    }

    #[test]
    fn data_may_be_any_bytes() {
        let mut text = b"INSERT INTO t FORMAT Native\n".to_vec();
        let length = text.len();
        text.extend([0xff, 0, b'\'', b'(']);
        assert!(
            matches!(Statement::of(&text), Statement::Insert { data_start, .. } if data_start == length),
            "the data begins behind the line break"
        );
    }
}
