//! `${VAR}`, `${VAR:-default}` and `${VAR:?message}` inside a scalar.
//!
//! Promises: what stands there already is looked at once (a value that comes out of the environment is not looked
//! into again), and no error holds a value of the environment. `$${` is a literal `${`.

/// Looks a variable up.
pub type Env<'e> = dyn Fn(&str) -> Option<String> + 'e;

/// Why a text could not be completed, and the characters that are to blame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VarError {
    pub start: usize,
    pub len: usize,
    pub message: String,
    pub help: Option<String>,
}

/// Whether there is anything to replace.
pub fn has_vars(text: &str) -> bool {
    text.contains("${")
}

/// The text with every variable replaced.
pub fn replace(text: &str, env: &Env<'_>) -> Result<String, Vec<VarError>> {
    let chars: Vec<char> = text.chars().collect();
    let mut replacer = Replacer { chars: &chars, env, errors: Vec::new() };
    let replaced = replacer.run(0, chars.len());
    if replacer.errors.is_empty() { Ok(replaced) } else { Err(replacer.errors) }
}

struct Replacer<'a> {
    chars: &'a [char],
    env: &'a Env<'a>,
    errors: Vec<VarError>,
}

impl Replacer<'_> {
    fn run(&mut self, mut at: usize, end: usize) -> String {
        let mut out = String::new();
        while at < end {
            match self.chars[at..end] {
                ['$', '$', '{', ..] => {
                    out.push_str("${");
                    at += 3;
                }
                ['$', '{', ..] => match self.closing(at + 2, end) {
                    Some(close) => {
                        self.variable(at, close, &mut out);
                        at = close + 1;
                    }
                    None => {
                        self.error(at, end, "`${` has no closing `}`".into(), Some("a literal `${` is written `$${`"));
                        at = end;
                    }
                },
                _ => {
                    out.push(self.chars[at]);
                    at += 1;
                }
            }
        }
        out
    }

    /// The `}` that belongs to the `${` before `at`; defaults may hold variables of their own.
    fn closing(&self, mut at: usize, end: usize) -> Option<usize> {
        let mut depth = 0;
        while at < end {
            match self.chars[at..end] {
                ['$', '{', ..] => {
                    depth += 1;
                    at += 1;
                }
                ['}', ..] if depth == 0 => return Some(at),
                ['}', ..] => depth -= 1,
                _ => {}
            }
            at += 1;
        }
        None
    }

    /// Replaces `${…}` whose `$` is at `open` and whose `}` is at `close`.
    fn variable(&mut self, open: usize, close: usize, out: &mut String) {
        let begin = open + 2;
        let rest = &self.chars[begin..close];
        let name_len = rest.iter().take_while(|c| c.is_ascii_alphanumeric() || **c == '_').count();
        let name: String = rest[..name_len].iter().collect();
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            let help = "a name has letters, digits and `_`, and begins with no digit; a literal `${` is written `$${`";
            return self.error(open, close + 1, "`${…}` holds no variable name".into(), Some(help));
        }
        let set = (self.env)(&name);
        let filled = set.clone().filter(|value| !value.is_empty());
        match (&rest[name_len..], set, filled) {
            ([], Some(value), _) | ([':', '-' | '?', ..], _, Some(value)) => out.push_str(&value),
            ([], None, _) => {
                let help = format!("set it, or give a default: `${{{name}:-…}}`");
                self.error(open, close + 1, format!("the environment has no `{name}`"), Some(&help));
            }
            ([':', '-', ..], _, None) => {
                let default = self.run(begin + name_len + 2, close);
                out.push_str(&default);
            }
            ([':', '?', message @ ..], _, None) => {
                let message: String = message.iter().collect();
                let message = if message.is_empty() { "it must be set".into() } else { message };
                self.error(open, close + 1, format!("`{name}` is not set: {message}"), None);
            }
            _ => {
                let help = format!("`${{{name}}}`, `${{{name}:-default}}` or `${{{name}:?message}}`");
                let message = format!("what follows `{name}` is no `:-default` and no `:?message`");
                self.error(open, close + 1, message, Some(&help));
            }
        }
    }

    fn error(&mut self, start: usize, end: usize, message: String, help: Option<&str>) {
        self.errors.push(VarError { start, len: end - start, message, help: help.map(str::to_string) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("db".into()),
            "EMPTY" => Some(String::new()),
            "SNEAKY" => Some("${HOST}".into()),
            _ => None,
        }
    }

    #[track_caller]
    fn gives(text: &str, expected: &str) {
        assert_eq!(replace(text, &env), Ok(expected.to_string()));
    }

    #[track_caller]
    fn fails(text: &str, start: usize, len: usize, part: &str) {
        let errors = replace(text, &env).unwrap_err();
        assert_eq!((errors[0].start, errors[0].len), (start, len));
        assert!(errors[0].message.contains(part), "{}", errors[0].message);
    }

    #[test]
    fn variables_and_defaults_are_replaced() {
        gives("http://${HOST}:8123/", "http://db:8123/");
        gives("${HOST}${HOST}", "dbdb");
        gives("${NOT:-x}", "x");
        gives("${NOT:-}", "");
        gives("${EMPTY}", "");
        gives("${EMPTY:-x}", "x");
        gives("${HOST:?why}", "db");
        gives("${NOT:-a${ALSO_NOT:-b${HOST}}c}", "abdbc");
        gives("${NOT:-a:b}", "a:b");
    }

    #[test]
    fn a_default_that_is_not_used_is_not_looked_into() {
        gives("${HOST:-${NOT}}", "db");
    }

    #[test]
    fn a_value_from_the_environment_is_not_looked_into() {
        gives("${SNEAKY}", "${HOST}");
    }

    #[test]
    fn dollars_alone_are_text() {
        gives("^a$", "^a$");
        gives("$HOST", "$HOST");
        gives("$${HOST}", "${HOST}");
        gives("é$", "é$");
    }

    #[test]
    fn what_is_missing_or_malformed_is_said_with_its_place() {
        fails("a ${NOT}", 2, 6, "`NOT`");
        fails("é ${NOT:?ask the admin}", 2, 21, "ask the admin");
        fails("${EMPTY:?}", 0, 10, "must be set");
        fails("${}", 0, 3, "no variable name");
        fails("${1A}", 0, 5, "no variable name");
        fails("${A", 0, 3, "closing");
        fails("${HOST-x}", 0, 9, "no `:-default`");
        assert_eq!(replace("${A}${B}", &env).unwrap_err().len(), 2);
    }
}
