//! The engine's C interface, made safe: one [`Engine`] a process, one [`Connection`] a request.
//!
//! Owns the loaded library. Promises: a connection's settings and database are its own, so they never leak from
//! one request into another. Never closes the library or the first connection: the engine boots once a process.

use crate::error::{Error, Result};
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;

/// The library's own types: only ever seen behind pointers.
type RawConnection = *mut c_void;
type RawResult = *mut c_void;

/// The entry points used, with the signatures of the library's header.
struct Functions {
    connect: unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut RawConnection,
    close: unsafe extern "C" fn(*mut RawConnection),
    query: unsafe extern "C" fn(
        RawConnection,
        *const c_char,
        usize,
        *const c_char,
        usize,
        *const *const c_char,
        *const usize,
        *const *const c_char,
        *const usize,
        usize,
    ) -> RawResult,
    error: unsafe extern "C" fn(RawResult) -> *const c_char,
    buffer: unsafe extern "C" fn(RawResult) -> *const u8,
    length: unsafe extern "C" fn(RawResult) -> usize,
    rows_read: unsafe extern "C" fn(RawResult) -> u64,
    bytes_read: unsafe extern "C" fn(RawResult) -> u64,
    rows_written: unsafe extern "C" fn(RawResult) -> u64,
    bytes_written: unsafe extern "C" fn(RawResult) -> u64,
    destroy: unsafe extern "C" fn(RawResult),
}

/// The running engine. Lives as long as the process.
pub struct Engine {
    functions: Functions,
    path_argument: CString,
}

impl Engine {
    /// Loads the library and boots the engine on `data`, which is made when it is not there.
    pub fn start(library: &Path, data: &Path) -> Result<&'static Engine> {
        let stop = |what: String| Error::stop("embedded_clickhouse", what);
        // SAFETY: the library is ClickHouse's engine; its initialisers need nothing of this process.
        let library = unsafe { Library::new(library) }
            .map_err(|error| stop(format!("cannot load the embedded ClickHouse: {error}")))?;
        // The engine has threads of its own, so its code must never be unmapped.
        let library: &'static Library = Box::leak(Box::new(library));
        let functions = load(library)
            .map_err(|error| stop(format!("the embedded ClickHouse lacks a function: {error}; run `make parts`")))?;
        let path_argument = CString::new(format!("--path={}", data.display()))
            .map_err(|_| stop("the data folder's name has a zero byte".to_owned()))?;
        let engine: &'static Engine = Box::leak(Box::new(Engine { functions, path_argument }));
        // Held open for good: the engine shuts down with its last connection.
        std::mem::forget(engine.connect()?);
        Ok(engine)
    }

    /// A new connection: 0.2 ms, default settings, database `default`.
    pub fn connect(&'static self) -> Result<Connection> {
        let program = c"clickhouse".as_ptr().cast_mut();
        let mut arguments = [program, self.path_argument.as_ptr().cast_mut()];
        // SAFETY: two valid C strings, which the call only reads.
        let raw = unsafe { (self.functions.connect)(arguments.len() as c_int, arguments.as_mut_ptr()) };
        match raw.is_null() {
            false => Ok(Connection { functions: &self.functions, raw }),
            true => Err(Error::stop(
                "embedded_clickhouse",
                format!(
                    "the embedded ClickHouse does not start ({}): is another process using the folder?",
                    self.path_argument.to_string_lossy()
                ),
            )),
        }
    }
}

/// One connection; its statements run one at a time.
pub struct Connection {
    functions: &'static Functions,
    raw: *mut RawConnection,
}

// SAFETY: the library locks inside; a connection may be used from any thread, one call at a time (`&mut self`).
unsafe impl Send for Connection {}

/// What a statement said when it failed: `Code: 60. DB::Exception: …`.
#[derive(Debug)]
pub struct EngineError(pub String);

impl Connection {
    /// Runs one statement; `format` is used where the text names none.
    pub fn query(&mut self, text: &[u8], format: &str, parameters: &[(String, String)]) -> Result<Answer, EngineError> {
        let names: Vec<_> = parameters.iter().map(|(name, _)| name.as_ptr().cast::<c_char>()).collect();
        let name_lens: Vec<_> = parameters.iter().map(|(name, _)| name.len()).collect();
        let values: Vec<_> = parameters.iter().map(|(_, value)| value.as_ptr().cast::<c_char>()).collect();
        let value_lens: Vec<_> = parameters.iter().map(|(_, value)| value.len()).collect();
        let or_null = |list: &[*const c_char]| if list.is_empty() { ptr::null() } else { list.as_ptr() };
        let lens_or_null = |list: &[usize]| if list.is_empty() { ptr::null() } else { list.as_ptr() };
        // SAFETY: every pointer comes with its length and outlives the call, which copies what it keeps.
        let raw = unsafe {
            (self.functions.query)(
                *self.raw,
                text.as_ptr().cast(),
                text.len(),
                format.as_ptr().cast(),
                format.len(),
                or_null(&names),
                lens_or_null(&name_lens),
                or_null(&values),
                lens_or_null(&value_lens),
                parameters.len(),
            )
        };
        if raw.is_null() {
            return Err(EngineError("Code: 210. DB::Exception: The engine gave no answer. (NETWORK_ERROR)".to_owned()));
        }
        let answer = Answer { functions: self.functions, raw };
        match answer.error() {
            Some(error) => Err(EngineError(error)),
            None => Ok(answer),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: made by `connect`, closed once.
        unsafe { (self.functions.close)(self.raw) }
    }
}

/// A statement's result, in the library's memory. As bytes it can be sent without a copy.
pub struct Answer {
    functions: &'static Functions,
    raw: RawResult,
}

// SAFETY: a finished result is plain memory that nobody writes any more.
unsafe impl Send for Answer {}

/// What a statement did, for the summary header.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    pub rows_read: u64,
    pub bytes_read: u64,
    pub rows_written: u64,
    pub bytes_written: u64,
}

impl Answer {
    fn error(&self) -> Option<String> {
        // SAFETY: `raw` is a live result; the text lives as long as it does.
        let text = unsafe { (self.functions.error)(self.raw) };
        if text.is_null() {
            return None;
        }
        // SAFETY: not null, and ended by a zero byte.
        Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }

    /// The counters; without meaning for a failed statement, which is why only an `Answer` has them.
    pub fn work(&self) -> Work {
        // SAFETY: `raw` is a live result.
        unsafe {
            Work {
                rows_read: (self.functions.rows_read)(self.raw),
                bytes_read: (self.functions.bytes_read)(self.raw),
                rows_written: (self.functions.rows_written)(self.raw),
                bytes_written: (self.functions.bytes_written)(self.raw),
            }
        }
    }
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `raw` is a live result; its buffer has that length and does not change.
        unsafe {
            let (buffer, length) = ((self.functions.buffer)(self.raw), (self.functions.length)(self.raw));
            if buffer.is_null() || length == 0 { &[] } else { std::slice::from_raw_parts(buffer, length) }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: made by `query`, destroyed once.
        unsafe { (self.functions.destroy)(self.raw) }
    }
}

fn load(library: &'static Library) -> Result<Functions, libloading::Error> {
    // SAFETY: the signatures are those of the library's header, checked against version 26.5.3.
    unsafe {
        let handlers: unsafe extern "C" fn(c_int) = *library.get(b"chdb_set_signal_handlers_enabled")?;
        // Signals belong to this process, not to a library.
        handlers(0);
        Ok(Functions {
            connect: *library.get(b"chdb_connect")?,
            close: *library.get(b"chdb_close_conn")?,
            query: *library.get(b"chdb_query_with_params_n")?,
            error: *library.get(b"chdb_result_error")?,
            buffer: *library.get(b"chdb_result_buffer")?,
            length: *library.get(b"chdb_result_length")?,
            rows_read: *library.get(b"chdb_result_rows_read")?,
            bytes_read: *library.get(b"chdb_result_bytes_read")?,
            rows_written: *library.get(b"chdb_result_rows_written")?,
            bytes_written: *library.get(b"chdb_result_bytes_written")?,
            destroy: *library.get(b"chdb_destroy_query_result")?,
        })
    }
}
