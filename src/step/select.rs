//! The select: from here on a row has the selected fields and no others.
//!
//! Promises: plain paths are not copied, exact numbers keep their text; an absent field becomes null. A row for
//! which an expression fails becomes a dead letter with the expression and the place.

use crate::codec::expr::{Expr, ExprError};
use crate::codec::rows::{BadRow, Rows, Slot};
use crate::codec::scope::{Derivations, Derive, Scope, Selected, absent_to_null};

/// A compiled select.
#[derive(Clone, Debug)]
pub struct Select {
    /// Slots of plain paths.
    plain: Vec<Slot>,
    computed: Vec<(Slot, Expr)>,
    derivations: Derivations,
    derive: Option<Derive>,
    scratch: Vec<u8>,
}

/// Which field's expression is wrong, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SelectError {
    /// The index of the field in the list.
    pub field: usize,
    pub error: ExprError,
}

impl Select {
    /// Reads the fields (name and expression) at this place of the pipeline and closes the scope to their names, also
    /// where some of them are wrong: what stands behind is judged all the same.
    pub fn compile<'t>(
        fields: impl IntoIterator<Item = (&'t str, &'t str)>,
        scope: &mut Scope,
    ) -> Result<Select, Vec<SelectError>> {
        let mut plain = Vec::new();
        let mut computed = Vec::new();
        let mut selected = Vec::new();
        let mut wrong = Vec::new();
        for (field, (name, text)) in fields.into_iter().enumerate() {
            let expr = match Expr::compile(text, scope) {
                Ok(expr) => expr,
                Err(error) => {
                    wrong.push(SelectError { field, error });
                    selected.push((name.to_owned(), Selected::Computed(scope.computed())));
                    continue;
                }
            };
            match expr.path() {
                Some(path) => {
                    plain.push(scope.resolve(path).expect("the expression has just resolved it"));
                    selected.push((name.to_owned(), Selected::Path(path.to_owned())));
                }
                None => {
                    let slot = scope.computed();
                    selected.push((name.to_owned(), Selected::Computed(slot)));
                    computed.push((slot, expr));
                }
            }
        }
        let derivations = scope.close(selected).expect("every selected path was resolved");
        match wrong.is_empty() {
            true => Ok(Select { plain, computed, derivations, derive: None, scratch: Vec::new() }),
            false => Err(wrong),
        }
    }

    /// Writes the fields of every row in `alive`. Rows that fail are named in `bad` and are out.
    pub fn apply(&mut self, rows: &mut Rows, alive: &mut Vec<u32>, bad: &mut Vec<BadRow>) {
        let derive = self.derive.get_or_insert_with(|| self.derivations.extractors());
        alive.retain(|&row| {
            let written = write_row(&self.plain, &self.computed, derive, &mut self.scratch, rows, row);
            if let Err((reason, message)) = written {
                bad.push(BadRow { row, reason, message });
                return false;
            }
            true
        });
    }
}

fn write_row(
    plain: &[Slot],
    computed: &[(Slot, Expr)],
    derive: &mut Derive,
    scratch: &mut Vec<u8>,
    rows: &mut Rows,
    row: u32,
) -> Result<(), (&'static str, String)> {
    for (slot, expr) in computed {
        let field = expr.field(rows, row, scratch).map_err(|fail| (fail.reason, expr.sentence(&fail)))?;
        rows.set(row, *slot, field);
    }
    for slot in plain {
        absent_to_null(rows, row, *slot);
    }
    derive.run(rows, row).map_err(|fault| (fault.reason, format!("in a selected field: {}", fault.what)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode::{Decoded, Decoder, TimeSpec};
    use crate::codec::record::RecordBatch;
    use crate::codec::rows::Kind;
    use crate::step::filter::Filter;

    fn decode(scope: Scope, payloads: &[&str]) -> (Rows, Vec<u32>) {
        let mut batch = RecordBatch::default();
        for (offset, payload) in payloads.iter().enumerate() {
            batch.push(offset as i64, 5, None, Some(payload.as_bytes()), []);
        }
        let time = TimeSpec { field: None, max_future_ms: 0 };
        let mut decoder = Decoder::new(scope.finish(), time, false, 1 << 20, "t".into(), 0, 0);
        let (mut rows, mut out) = (Rows::default(), Decoded::default());
        decoder.decode(&mut batch, 5, &mut rows, &mut out);
        assert!(out.broken.is_empty());
        let alive = (0..rows.len() as u32).collect();
        (rows, alive)
    }

    fn text(rows: &Rows, row: u32, slot: Slot) -> String {
        let field = rows.field(row, slot);
        match field.kind {
            Kind::Absent => "absent".into(),
            Kind::Null => "null".into(),
            Kind::True => "true".into(),
            Kind::False => "false".into(),
            _ => String::from_utf8(rows.text(field).to_vec()).unwrap(),
        }
    }

    #[test]
    fn a_filter_keeps_what_is_true_and_names_what_fails() {
        let mut scope = Scope::new();
        let mut filter = Filter::compile("x > 1", &mut scope).unwrap();
        let (mut rows, mut alive) = decode(scope, &[r#"{"x":2}"#, r#"{"x":1}"#, r#"{"x":"2"}"#, "{}", r#"{"x":3.5}"#]);
        let mut bad = Vec::new();
        assert_eq!(filter.apply(&mut rows, &mut alive, &mut bad), 1);
        assert_eq!(alive, [0, 4]);
        assert_eq!(
            bad.iter().map(|bad| (bad.row, bad.reason)).collect::<Vec<_>>(),
            [(2, "expression_failed"), (3, "expression_failed"),]
        );
        assert_eq!(bad[1].message, "the expression `x > 1` failed: null and a number have no order");
    }

    #[test]
    fn a_filter_that_gives_no_boolean_makes_a_dead_letter() {
        let mut scope = Scope::new();
        let mut filter = Filter::compile("x", &mut scope).unwrap();
        let (mut rows, mut alive) = decode(scope, &[r#"{"x":true}"#, r#"{"x":false}"#, r#"{"x":1}"#, "{}"]);
        let mut bad = Vec::new();
        assert_eq!(filter.apply(&mut rows, &mut alive, &mut bad), 1);
        assert_eq!((alive, bad.len()), (vec![0], 2));
    }

    #[test]
    fn a_select_keeps_exact_texts_writes_null_for_absent_and_computes_the_rest() {
        let mut scope = Scope::new();
        let fields = [("id", "id"), ("gone", "gone"), ("sum", "a + 0.5"), ("note", "'\"' + s"), ("none", "null")];
        let mut select = Select::compile(fields, &mut scope).unwrap();
        let slots: Vec<Slot> = fields.iter().map(|(name, _)| scope.resolve(name).unwrap()).collect();
        let payload = r#"{"id":123456789012345678901234567890.10,"a":1,"s":"x"}"#;
        let (mut rows, mut alive) = decode(scope, &[payload, r#"{"a":"1"}"#]);
        let mut bad = Vec::new();
        select.apply(&mut rows, &mut alive, &mut bad);
        let texts: Vec<String> = slots.iter().map(|slot| text(&rows, 0, *slot)).collect();
        assert_eq!(texts, ["123456789012345678901234567890.10", "null", "1.5", "\\\"x", "null"]);
        assert_eq!(rows.field(0, slots[3]).kind, Kind::Escaped);
        assert_eq!((alive, bad[0].row), (vec![0], 1));
    }

    #[test]
    fn paths_go_on_below_selected_fields() {
        let mut scope = Scope::new();
        let fields = [("u", "user"), ("d", "a.b"), ("o", "{'x': {'y': n}}"), ("l", "l.map(e, e + 1)")];
        let mut first = Select::compile(fields, &mut scope).unwrap();
        let mut second = Select::compile([("p", "o.x"), ("q", "u"), ("r", "d.c")], &mut scope).unwrap();
        let [y, country, r] = ["p.y", "q.country", "r"].map(|path| scope.resolve(path).unwrap());
        let payload = r#"{"user":{"country":"DE"},"user.country":"no","a.b":{"c":1},"n":7,"l":[1]}"#;
        let (mut rows, mut alive) = decode(scope, &[payload]);
        let mut bad = Vec::new();
        first.apply(&mut rows, &mut alive, &mut bad);
        second.apply(&mut rows, &mut alive, &mut bad);
        assert!(bad.is_empty(), "{bad:?}");
        assert_eq!([y, country, r].map(|slot| text(&rows, 0, slot)), ["7", "DE", "1"]);
    }

    #[test]
    fn every_wrong_expression_names_its_field_and_its_name_is_known_behind_it() {
        let mut scope = Scope::new();
        let fields = [("a", "x >"), ("b", "nothing(x)"), ("c", "x")];
        let wrong = Select::compile(fields, &mut scope).map(|_| ()).unwrap_err();
        assert_eq!(wrong.iter().map(|error| error.field).collect::<Vec<_>>(), [0, 1]);
        assert!(Filter::compile("a > 1 && b == c", &mut scope).is_ok());
    }

    #[test]
    fn what_a_select_nests_too_deep_is_a_dead_letter_there_and_no_panic_behind() {
        let mut scope = Scope::new();
        let mut select = Select::compile([("a", "[[[x]]]")], &mut scope).unwrap();
        let mut filter = Filter::compile("a[0] != null && a[0] == a[0]", &mut scope).unwrap();
        let deep = |depth: usize| format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        let (mut rows, mut alive) = decode(scope, &[&deep(127), &deep(125), &deep(124)]);
        let mut bad = Vec::new();
        select.apply(&mut rows, &mut alive, &mut bad);
        assert_eq!(bad.iter().map(|bad| (bad.row, bad.reason)).collect::<Vec<_>>(), [(0, "too_deep"), (1, "too_deep")]);
        assert_eq!(bad[0].message, "the expression `[[[x]]]` failed: the result is nested deeper than 127");
        assert_eq!(filter.apply(&mut rows, &mut alive, &mut bad), 0);
        assert_eq!((alive, bad.len()), (vec![2], 2));
    }

    #[test]
    fn a_field_given_twice_is_a_dead_letter_however_it_is_reached() {
        for (condition, payload) in [
            ("items[0].x == 2", r#"{"items":[{"x":1,"x":2}]}"#),
            ("m[\"k\"] == 1", r#"{"m":{"k":1,"\u006b":1}}"#),
            ("has(items[0].x)", r#"{"items":[{"x":1,"x":2}]}"#),
            ("l.exists(e, e.n > 1)", r#"{"l":[{"n":5,"n":1}]}"#),
            ("l.all(e, e.n > 1)", r#"{"l":[{"n":5},{"n":1,"n":5}]}"#),
            ("'k' in m", r#"{"m":{"k":null,"k":1}}"#),
            ("size(m) == 1", r#"{"m":{"k":1,"k":1}}"#),
            ("m == n", r#"{"m":{"k":1,"k":1},"n":{"k":1}}"#),
            ("n in [m]", r#"{"m":[{"k":1,"k":1}],"n":[{"k":1}]}"#),
            ("m.exists(k, true)", r#"{"m":{"k":1,"k":1}}"#),
            ("items[0].x == 2 || true", r#"{"items":[{"x":1,"x":2}]}"#),
            ("y > 1 || items[0].x == 2", r#"{"items":[{"x":1,"x":2}]}"#),
        ] {
            let mut scope = Scope::new();
            let mut filter = Filter::compile(condition, &mut scope).unwrap();
            let (mut rows, mut alive) = decode(scope, &[payload]);
            let mut bad = Vec::new();
            filter.apply(&mut rows, &mut alive, &mut bad);
            let said: Vec<_> = bad.iter().map(|bad| (bad.reason, bad.message.contains("is given twice"))).collect();
            assert_eq!(said, [("duplicate_field", true)], "{condition}: {bad:?}");
        }
    }
}
