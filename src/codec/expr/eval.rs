//! Evaluates compiled expressions on a row.
//!
//! Owns the operators. Promises: no state, no clock, no allocation for comparisons of fields with constants. `&&`
//! and `||` do not care for an error on one side where the other side decides, as in CEL.

use crate::codec::expr::function::as_double;
use crate::codec::expr::node::{Arithmetic, Does, Macro, Node, NodeKind, Order};
use crate::codec::expr::value::{RowView, Twice, Value, equal, order, whole};
use crate::codec::scan::DEPTH_MAX;
use crate::codec::time::Moment;
use std::cmp::Ordering;

/// Why an expression gave nothing, and which part of its text failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fail {
    /// The short stable name of a dead letter.
    pub reason: &'static str,
    pub message: String,
    pub start: u32,
    pub len: u32,
}

impl Fail {
    /// Whether `&&`, `||` and the like may do without the side that failed. A payload that is broken where somebody
    /// looked is broken whatever the other side says.
    fn may_be_undecided(&self) -> bool {
        self.reason == FAILED
    }
}

/// An operation that does not take what it was given.
const FAILED: &str = "expression_failed";

/// Why an operation gave nothing, before it is known where it stands.
#[derive(Debug)]
pub struct Refusal {
    reason: &'static str,
    message: String,
}

impl Refusal {
    #[cold]
    pub fn too_deep() -> Refusal {
        let message = format!("the result is nested deeper than {}", DEPTH_MAX - 1);
        Refusal { reason: "too_deep", message }
    }
}

impl From<String> for Refusal {
    fn from(message: String) -> Refusal {
        Refusal { reason: FAILED, message }
    }
}

impl From<Twice> for Refusal {
    fn from(twice: Twice) -> Refusal {
        Refusal { reason: "duplicate_field", message: twice.to_string() }
    }
}

pub type Evaluated<T> = Result<T, Box<Fail>>;

/// The variables of the macros around a node.
pub type Variables<'a> = Vec<Value<'a>>;

impl Node {
    #[cold]
    #[inline(never)]
    fn fail<T>(&self, message: impl Into<String>) -> Evaluated<T> {
        self.refuse(message.into())
    }

    #[cold]
    #[inline(never)]
    pub(super) fn refuse<T>(&self, refusal: impl Into<Refusal>) -> Evaluated<T> {
        let Refusal { reason, message } = refusal.into();
        Err(Box::new(Fail { reason, message, start: self.start, len: self.len }))
    }

    /// `==` of what two nodes gave.
    fn equal(&self, left: &Value<'_>, right: &Value<'_>) -> Evaluated<bool> {
        equal(left, right).or_else(|twice| self.refuse(twice))
    }

    /// The value of this node.
    pub fn value<'a>(&'a self, row: RowView<'a>, variables: &mut Variables<'a>) -> Evaluated<Value<'a>> {
        match &self.kind {
            NodeKind::Constant(value) => Ok(value.borrowed()),
            NodeKind::Path(slot) => Ok(Value::of_field(row.fields[slot.0 as usize], row.bytes)),
            NodeKind::Variable(depth) => Ok(variables[*depth].clone()),
            NodeKind::Member(node, name) => {
                node.value(row, variables)?.member(name).or_else(|twice| self.refuse(twice))
            }
            NodeKind::Index(node, index) => {
                let of = node.value(row, variables)?;
                let index = index.value(row, variables)?;
                self.index(&of, &index)
            }
            NodeKind::Choose(parts) => {
                let [condition, yes, no] = parts.as_ref();
                let chosen = if condition.truth(row, variables)? { yes } else { no };
                chosen.value(row, variables)
            }
            NodeKind::Negate(node) => self.negate(node.value(row, variables)?),
            NodeKind::Compute(arithmetic, left, right) => {
                let left = left.value(row, variables)?;
                let right = right.value(row, variables)?;
                compute(*arithmetic, left, right).or_else(|message| self.fail(message))
            }
            NodeKind::Call(function, args) => {
                let mut values = Vec::with_capacity(args.len());
                for arg in args {
                    values.push(arg.value(row, variables)?);
                }
                function.call(&values).or_else(|refusal| self.refuse(refusal))
            }
            NodeKind::List(nodes) => {
                let mut list = Vec::with_capacity(nodes.len());
                for node in nodes {
                    list.push(node.value(row, variables)?);
                }
                Ok(Value::List(list))
            }
            NodeKind::Map(entries) => self.map(entries, row, variables),
            NodeKind::Macro(one) => self.run_macro(one, row, variables),
            _ => self.truth(row, variables).map(Value::Bool),
        }
    }

    /// The truth of this node; fails where it gives no boolean.
    pub fn truth<'a>(&'a self, row: RowView<'a>, variables: &mut Variables<'a>) -> Evaluated<bool> {
        match &self.kind {
            NodeKind::Not(node) => Ok(!node.truth(row, variables)?),
            NodeKind::And(left, right) => match left.truth(row, variables) {
                Ok(false) => Ok(false),
                Ok(true) => right.truth(row, variables),
                Err(fail) => undecided(fail, false, || right.truth(row, variables)),
            },
            NodeKind::Or(left, right) => match left.truth(row, variables) {
                Ok(true) => Ok(true),
                Ok(false) => right.truth(row, variables),
                Err(fail) => undecided(fail, true, || right.truth(row, variables)),
            },
            NodeKind::Has(node) => Ok(node.value(row, variables)? != Value::Null),
            NodeKind::Equal(left, right) => self.equal(&left.value(row, variables)?, &right.value(row, variables)?),
            NodeKind::Unequal(left, right) => {
                Ok(!self.equal(&left.value(row, variables)?, &right.value(row, variables)?)?)
            }
            NodeKind::Order(wanted, left, right) => {
                let left = left.value(row, variables)?;
                let right = right.value(row, variables)?;
                self.order(*wanted, &left, &right)
            }
            NodeKind::In(node, list) => {
                let value = node.value(row, variables)?;
                self.is_in(&value, list, row, variables)
            }
            NodeKind::Matches(node, regex) => match node.value(row, variables)? {
                Value::Text(text) => Ok(regex.is_match(&text)),
                other => self.fail(format!("`matches` does not take {}", other.kind_name())),
            },
            _ => match self.value(row, variables)? {
                Value::Bool(truth) => Ok(truth),
                other => self.fail(format!("{} where a boolean should be", other.kind_name())),
            },
        }
    }

    fn order(&self, wanted: Order, left: &Value<'_>, right: &Value<'_>) -> Evaluated<bool> {
        let Some(found) = order(left, right) else {
            return self.fail(format!("{} and {} have no order", left.kind_name(), right.kind_name()));
        };
        Ok(match wanted {
            Order::Less => found == Some(Ordering::Less),
            Order::LessOrEqual => matches!(found, Some(Ordering::Less | Ordering::Equal)),
            Order::Greater => found == Some(Ordering::Greater),
            Order::GreaterOrEqual => matches!(found, Some(Ordering::Greater | Ordering::Equal)),
        })
    }

    fn is_in<'a>(
        &'a self,
        value: &Value<'a>,
        list: &'a Node,
        row: RowView<'a>,
        variables: &mut Variables<'a>,
    ) -> Evaluated<bool> {
        if let NodeKind::Constant(Value::List(list)) = &list.kind {
            return self.is_among(value, list);
        }
        let list = list.value(row, variables)?;
        if let Some(list) = list.as_list() {
            return self.is_among(value, &list);
        }
        match (&list, value) {
            (Value::Object(_), Value::Text(name)) => match list.member(name) {
                Ok(member) => Ok(member != Value::Null),
                Err(twice) => self.refuse(twice),
            },
            (Value::Object(_), _) => Ok(false),
            (Value::Map(map), value) => {
                let there = map.iter().filter(|(_, value)| *value != Value::Null);
                let names: Vec<Value<'_>> = there.map(|(name, _)| name.borrowed()).collect();
                self.is_among(value, &names)
            }
            (list, _) => self.fail(format!("`in` looks into a list or an object, not into {}", list.kind_name())),
        }
    }

    fn is_among(&self, value: &Value<'_>, list: &[Value<'_>]) -> Evaluated<bool> {
        for element in list {
            if self.equal(element, value)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What is not there is null, as with paths.
    fn index<'a>(&self, of: &Value<'a>, index: &Value<'a>) -> Evaluated<Value<'a>> {
        if *of == Value::Null {
            return Ok(Value::Null);
        }
        if let Some(list) = of.as_list() {
            let at = match index {
                Value::Double(value) if value.fract() == 0.0 && value.abs() < 1e18 => *value as i128,
                index => match whole(index) {
                    Some(at) => at,
                    None => return self.fail(format!("{} is no index into a list", index.kind_name())),
                },
            };
            let found = usize::try_from(at).ok().and_then(|at| list.get(at));
            return Ok(found.cloned().unwrap_or(Value::Null));
        }
        match (of, index) {
            (Value::Object(_), Value::Text(name)) => of.member(name).or_else(|twice| self.refuse(twice)),
            (Value::Object(_), _) => Ok(Value::Null),
            (Value::Map(map), index) => {
                for (name, value) in map {
                    if self.equal(name, index)? {
                        return Ok(value.clone());
                    }
                }
                Ok(Value::Null)
            }
            (of, _) => self.fail(format!("{} has no elements", of.kind_name())),
        }
    }

    fn negate<'a>(&self, value: Value<'a>) -> Evaluated<Value<'a>> {
        match value {
            Value::Int(value) => match value.checked_neg() {
                Some(value) => Ok(Value::Int(value)),
                None => self.fail(NO_INT),
            },
            Value::Uint(value) => match i64::try_from(-(value as i128)) {
                Ok(value) => Ok(Value::Int(value)),
                Err(_) => self.fail(NO_INT),
            },
            Value::Double(value) => Ok(Value::Double(-value)),
            Value::Duration(nanos) => Ok(Value::Duration(-nanos)),
            Value::Long(_) => match as_double(&value) {
                Some(double) => Ok(Value::Double(-double)),
                None => self.fail(NO_DOUBLE),
            },
            other => self.fail(format!("{} cannot be negated", other.kind_name())),
        }
    }

    fn map<'a>(
        &'a self,
        entries: &'a [(Node, Node)],
        row: RowView<'a>,
        variables: &mut Variables<'a>,
    ) -> Evaluated<Value<'a>> {
        let mut map: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(entries.len());
        for (name_node, value) in entries {
            let name = name_node.value(row, variables)?;
            if !matches!(name, Value::Text(_) | Value::Int(_) | Value::Uint(_) | Value::Bool(_)) {
                return name_node.fail(format!("{} cannot be a key", name.kind_name()));
            }
            for (known, _) in &map {
                if name_node.equal(known, &name)? {
                    return name_node.fail("the same key twice");
                }
            }
            map.push((name, value.value(row, variables)?));
        }
        Ok(Value::Map(map))
    }

    fn run_macro<'a>(
        &'a self,
        one: &'a Macro,
        row: RowView<'a>,
        variables: &mut Variables<'a>,
    ) -> Evaluated<Value<'a>> {
        let range = one.range.value(row, variables)?;
        let items: Vec<Value<'a>> = if let Some(list) = range.as_list() {
            list.into_owned()
        } else if let Some(map) = range.as_map().or_else(|twice| one.range.refuse(twice))? {
            map.iter().map(|(name, _)| name.clone()).collect()
        } else {
            return one.range.fail(format!("{} has no elements", range.kind_name()));
        };
        let depth = variables.len();
        debug_assert_eq!(depth, one.variable);
        let result = items.into_iter().try_fold(Fold::default(), |fold, item| {
            variables.push(item);
            let folded = fold.step(&one.does, row, variables);
            variables.truncate(depth);
            folded
        });
        result?.result(&one.does)
    }
}

/// What `&&` and `||` give whose left side failed: what the right side decides alone, if it does.
fn undecided(fail: Box<Fail>, decides: bool, right: impl FnOnce() -> Evaluated<bool>) -> Evaluated<bool> {
    if !fail.may_be_undecided() {
        return Err(fail);
    }
    match right() {
        Ok(truth) if truth == decides => Ok(decides),
        Err(broken) if !broken.may_be_undecided() => Err(broken),
        _ => Err(fail),
    }
}

/// What a macro has come to so far.
#[derive(Default)]
struct Fold<'a> {
    decided: bool,
    count: usize,
    failed: Option<Box<Fail>>,
    list: Vec<Value<'a>>,
}

impl<'a> Fold<'a> {
    fn step(mut self, does: &'a Does, row: RowView<'a>, variables: &mut Variables<'a>) -> Evaluated<Fold<'a>> {
        if self.decided {
            return Ok(self);
        }
        match does {
            Does::All(test) | Does::Exists(test) => match test.truth(row, variables) {
                Ok(truth) => self.decided = truth == matches!(does, Does::Exists(_)),
                Err(fail) if fail.may_be_undecided() => self.failed = self.failed.or(Some(fail)),
                Err(fail) => return Err(fail),
            },
            Does::ExistsOne(test) => self.count += test.truth(row, variables)? as usize,
            Does::Collect(filter, what) => {
                let passes = match filter {
                    Some(filter) => filter.truth(row, variables)?,
                    None => true,
                };
                if passes {
                    self.list.push(what.value(row, variables)?);
                }
            }
        }
        Ok(self)
    }

    fn result(self, does: &Does) -> Evaluated<Value<'a>> {
        match (does, self.failed) {
            (Does::All(_) | Does::Exists(_), Some(fail)) if !self.decided => Err(fail),
            (Does::All(_), _) => Ok(Value::Bool(!self.decided)),
            (Does::Exists(_), _) => Ok(Value::Bool(self.decided)),
            (Does::ExistsOne(_), _) => Ok(Value::Bool(self.count == 1)),
            (Does::Collect(..), _) => Ok(Value::List(self.list)),
        }
    }
}

const NO_DOUBLE: &str = "a number beyond the range of doubles";
const NO_INT: &str = "the result is no 64-bit integer";
const NO_TIME: &str = "the result lies outside of the years 0 to 9999";

fn compute<'a>(arithmetic: Arithmetic, left: Value<'a>, right: Value<'a>) -> Result<Value<'a>, String> {
    match (&left, &right) {
        (Value::Int(_) | Value::Uint(_), Value::Int(_) | Value::Uint(_)) => compute_whole(arithmetic, &left, &right),
        (left, right) if left.is_number() && right.is_number() => compute_double(arithmetic, left, right),
        _ => compute_other(arithmetic, left, right),
    }
}

/// Two uints give a uint; with an int on either side an int, or a uint where only that holds it.
fn compute_whole<'a>(arithmetic: Arithmetic, left: &Value<'_>, right: &Value<'_>) -> Result<Value<'a>, String> {
    let both_unsigned = matches!((left, right), (Value::Uint(_), Value::Uint(_)));
    let (left, right) = (whole(left).expect("an int or uint"), whole(right).expect("an int or uint"));
    let result = match arithmetic {
        Arithmetic::Add => left.checked_add(right),
        Arithmetic::Subtract => left.checked_sub(right),
        Arithmetic::Multiply => left.checked_mul(right),
        Arithmetic::Divide | Arithmetic::Modulo if right == 0 => return Err("division by zero".to_owned()),
        Arithmetic::Divide => left.checked_div(right),
        Arithmetic::Modulo => left.checked_rem(right),
    };
    let result = result.ok_or(NO_INT)?;
    match (i64::try_from(result), u64::try_from(result)) {
        (_, Ok(result)) if both_unsigned => Ok(Value::Uint(result)),
        (Ok(result), _) if !both_unsigned => Ok(Value::Int(result)),
        // Ints of their own overflow; a uint among them keeps its range.
        (_, Ok(result)) if left > i64::MAX as i128 || right > i64::MAX as i128 => Ok(Value::Uint(result)),
        _ => Err(NO_INT.to_owned()),
    }
}

fn compute_double<'a>(arithmetic: Arithmetic, left: &Value<'_>, right: &Value<'_>) -> Result<Value<'a>, String> {
    let (Some(left), Some(right)) = (as_double(left), as_double(right)) else {
        return Err(NO_DOUBLE.to_owned());
    };
    Ok(Value::Double(match arithmetic {
        Arithmetic::Add => left + right,
        Arithmetic::Subtract => left - right,
        Arithmetic::Multiply => left * right,
        Arithmetic::Divide => left / right,
        Arithmetic::Modulo => return Err("`%` takes whole numbers only".to_owned()),
    }))
}

fn compute_other<'a>(arithmetic: Arithmetic, left: Value<'a>, right: Value<'a>) -> Result<Value<'a>, String> {
    let time = |nanos: i128| Moment::from_nanos(nanos).map(Value::Time).ok_or_else(|| NO_TIME.to_owned());
    match (arithmetic, &left, &right) {
        (Arithmetic::Add, Value::Text(left), Value::Text(right)) => Ok(Value::Text(format!("{left}{right}").into())),
        (Arithmetic::Add, Value::Bytes(left), Value::Bytes(right)) => {
            Ok(Value::Bytes([left.as_ref(), right.as_ref()].concat().into()))
        }
        (Arithmetic::Add, Value::Time(moment), Value::Duration(nanos))
        | (Arithmetic::Add, Value::Duration(nanos), Value::Time(moment)) => time(moment.total_nanos() + nanos),
        (Arithmetic::Subtract, Value::Time(moment), Value::Duration(nanos)) => time(moment.total_nanos() - nanos),
        (Arithmetic::Subtract, Value::Time(left), Value::Time(right)) => {
            Ok(Value::Duration(left.total_nanos() - right.total_nanos()))
        }
        (Arithmetic::Add, Value::Duration(left), Value::Duration(right)) => {
            Ok(Value::Duration(left.checked_add(*right).ok_or(NO_TIME)?))
        }
        (Arithmetic::Subtract, Value::Duration(left), Value::Duration(right)) => {
            Ok(Value::Duration(left.checked_sub(*right).ok_or(NO_TIME)?))
        }
        (Arithmetic::Add, left, right) if left.as_list().is_some() && right.as_list().is_some() => {
            let mut list = left.as_list().unwrap_or_default().into_owned();
            list.extend(right.as_list().unwrap_or_default().into_owned());
            Ok(Value::List(list))
        }
        _ => {
            let sign = match arithmetic {
                Arithmetic::Add => "+",
                Arithmetic::Subtract => "-",
                Arithmetic::Multiply => "*",
                Arithmetic::Divide => "/",
                Arithmetic::Modulo => "%",
            };
            Err(format!("there is no {} {sign} {}", left.kind_name(), right.kind_name()))
        }
    }
}
