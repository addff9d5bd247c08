//! The compiled form of an expression: what the parser read, with names as slots and constants worked out.

use crate::codec::expr::function::Function;
use crate::codec::expr::value::Value;
use crate::codec::rows::Slot;

/// A node and the part of the expression's text it stands for (in characters).
#[derive(Clone, Debug)]
pub struct Node {
    pub kind: NodeKind,
    pub start: u32,
    pub len: u32,
}

#[derive(Clone, Debug)]
pub enum NodeKind {
    Constant(Value<'static>),
    Path(Slot),
    /// A macro's variable, by its depth.
    Variable(usize),
    Member(Box<Node>, String),
    Has(Box<Node>),
    Index(Box<Node>, Box<Node>),
    Not(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Choose(Box<[Node; 3]>),
    Negate(Box<Node>),
    Compute(Arithmetic, Box<Node>, Box<Node>),
    Equal(Box<Node>, Box<Node>),
    Unequal(Box<Node>, Box<Node>),
    Order(Order, Box<Node>, Box<Node>),
    In(Box<Node>, Box<Node>),
    Matches(Box<Node>, Box<regex::Regex>),
    Call(Function, Vec<Node>),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Macro(Box<Macro>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// One of CEL's macros over a list (or over the names of an object).
#[derive(Clone, Debug)]
pub struct Macro {
    pub range: Node,
    pub variable: usize,
    pub does: Does,
}

#[derive(Clone, Debug)]
pub enum Does {
    All(Node),
    Exists(Node),
    ExistsOne(Node),
    /// Keeps what passes the filter (if any), as the second says.
    Collect(Option<Node>, Node),
}

/// What is known about a value before there is a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    Any,
    Null,
    Bool,
    Number,
    Text,
    Bytes,
    Time,
    Duration,
    List,
    Map,
}

impl Type {
    /// The name, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Type::Any => "anything",
            Type::Null => "null",
            Type::Bool => "a boolean",
            Type::Number => "a number",
            Type::Text => "text",
            Type::Bytes => "bytes",
            Type::Time => "a timestamp",
            Type::Duration => "a duration",
            Type::List => "a list",
            Type::Map => "an object",
        }
    }

    pub fn of_value(value: &Value<'_>) -> Type {
        match value {
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Long(_) => Type::Number,
            Value::Text(_) => Type::Text,
            Value::Bytes(_) => Type::Bytes,
            Value::Time(_) => Type::Time,
            Value::Duration(_) => Type::Duration,
            Value::List(_) | Value::Array(_) => Type::List,
            Value::Map(_) | Value::Object(_) => Type::Map,
        }
    }
}

impl Node {
    /// What this gives whenever it gives anything; `Any` where it depends on the row.
    pub fn type_of(&self) -> Type {
        match &self.kind {
            NodeKind::Constant(value) => Type::of_value(value),
            NodeKind::Path(_) | NodeKind::Variable(_) | NodeKind::Member(..) | NodeKind::Index(..) => Type::Any,
            NodeKind::Has(_) | NodeKind::Not(_) | NodeKind::And(..) | NodeKind::Or(..) => Type::Bool,
            NodeKind::Equal(..) | NodeKind::Unequal(..) | NodeKind::Order(..) => Type::Bool,
            NodeKind::In(..) | NodeKind::Matches(..) => Type::Bool,
            NodeKind::Choose(parts) => match (parts[1].type_of(), parts[2].type_of()) {
                (left, right) if left == right => left,
                _ => Type::Any,
            },
            NodeKind::Negate(node) => node.type_of(),
            NodeKind::Compute(arithmetic, left, right) => {
                compute_type(*arithmetic, left.type_of(), right.type_of()).unwrap_or(Type::Any)
            }
            NodeKind::Call(function, _) => function.gives(),
            NodeKind::List(_) => Type::List,
            NodeKind::Map(_) => Type::Map,
            NodeKind::Macro(one) => match one.does {
                Does::Collect(..) => Type::List,
                _ => Type::Bool,
            },
        }
    }
}

/// What an operation gives for operands of these types; `None` where it never works.
pub fn compute_type(arithmetic: Arithmetic, left: Type, right: Type) -> Option<Type> {
    use Arithmetic::*;
    use Type::*;
    match (arithmetic, left, right) {
        (_, Null, _) | (_, _, Null) => None,
        (_, Any, _) | (_, _, Any) => Some(Any),
        (_, Number, Number) => Some(Number),
        (Add, Text, Text) => Some(Text),
        (Add, Bytes, Bytes) => Some(Bytes),
        (Add, List, List) => Some(List),
        (Add, Time, Duration) | (Add, Duration, Time) | (Subtract, Time, Duration) => Some(Time),
        (Add | Subtract, Duration, Duration) | (Subtract, Time, Time) => Some(Duration),
        _ => None,
    }
}
