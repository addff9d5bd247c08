//! From an expression's text to its compiled form.
//!
//! Owns the reading of CEL (the `cel` crate's parser; the evaluation is ours, because ours are the rules for null
//! and numbers). Promises: what can be known before there is a row is an error here, with its place.

use crate::codec::expr::eval::Fail;
use crate::codec::expr::function::Function;
use crate::codec::expr::node::{Arithmetic, Does, Macro, Node, NodeKind, Order, Type, compute_type};
use crate::codec::expr::value::{RowView, Value};
use crate::codec::scope::Scope;
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr as Ast, IdedExpr, ListExpr, LiteralValue, MapExpr, SourceInfo,
    operators,
};
use std::borrow::Cow;

/// Why an expression cannot be meant, and where in its text (in characters).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExprError {
    pub message: String,
    pub start: u32,
    pub len: u32,
}

impl std::fmt::Display for ExprError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

const HEADERS: &str = "_headers";
/// Operators, brackets and dots of one expression.
const OPERATORS_MAX: usize = 500;
/// The parser takes some KiB of it for each level.
const PARSER_STACK_BYTES: usize = 64 << 20;

/// What comes out: the tree, and the path where the expression is nothing but one.
pub struct Compiled {
    pub root: Node,
    pub path: Option<String>,
}

/// Reads and resolves an expression at this place of the pipeline.
pub fn compile(text: &str, scope: &mut Scope) -> Result<Compiled, ExprError> {
    let (ast, source) = parse(text)?;
    let path = path_of(&ast.expr);
    let mut compiler = Compiler { source, text: text.chars().collect(), scope, variables: Vec::new() };
    let root = compiler.node(&ast)?;
    Ok(Compiled { root, path })
}

fn parse(text: &str) -> Result<(IdedExpr, SourceInfo), ExprError> {
    let whole = text.chars().count() as u32;
    if text.trim().is_empty() {
        return Err(ExprError { message: "an empty expression".to_owned(), start: 0, len: whole });
    }
    let operators = operators(text);
    if operators > OPERATORS_MAX {
        let message = format!(
            "the expression has {operators} operators, brackets and dots, and {OPERATORS_MAX} is the most: `x in \
             [...]` compares with many values, and several steps follow one another"
        );
        return Err(ExprError { message, start: 0, len: whole });
    }
    // A panic of the parser's is a finding like any other.
    let parsed = std::thread::scope(|scope| {
        let parse = || cel::parser::Parser::new().enable_ident_escape_syntax(true).parse_with_source_info(text);
        let thread = std::thread::Builder::new().stack_size(PARSER_STACK_BYTES);
        thread.spawn_scoped(scope, parse).expect("the process can start a thread").join()
    });
    match parsed {
        Ok(Ok(parsed)) => Ok(parsed),
        Ok(Err(errors)) => {
            let Some(first) = errors.errors.first() else {
                return Err(ExprError { message: "not an expression".to_owned(), start: 0, len: whole });
            };
            let start = character_at(text, first.pos).min(whole);
            Err(ExprError { message: first.msg.clone(), start, len: u32::from(start < whole) })
        }
        Err(_) => Err(ExprError { message: "not an expression".to_owned(), start: 0, len: whole }),
    }
}

/// How deep the tree can be at most: each of them adds a level, and all that walks the tree is recursive.
fn operators(text: &str) -> usize {
    let mut quote = None;
    let mut count = 0;
    let mut chars = text.chars();
    while let Some(character) = chars.next() {
        match (quote, character) {
            (Some(_), '\\') => _ = chars.next(),
            (Some(open), _) if open == character => quote = None,
            (None, '"' | '\'') => quote = Some(character),
            (None, _) if "+-*/%.[({!?<>=&|".contains(character) => count += 1,
            _ => {}
        }
    }
    count
}

/// The character of a 1-based line and column.
fn character_at(text: &str, (line, column): (isize, isize)) -> u32 {
    let before: usize = text.split_inclusive('\n').take((line - 1).max(0) as usize).map(|l| l.chars().count()).sum();
    before as u32 + (column - 1).max(0) as u32
}

/// `a.b.c`, where the expression is nothing but that.
fn path_of(ast: &Ast) -> Option<String> {
    match ast {
        Ast::Ident(name) => Some(name.clone()),
        Ast::Select(select) if !select.test => Some(format!("{}.{}", path_of(&select.operand.expr)?, select.field)),
        _ => None,
    }
}

fn root_of(ast: &Ast) -> Option<&str> {
    match ast {
        Ast::Ident(name) => Some(name),
        Ast::Select(select) if !select.test => root_of(&select.operand.expr),
        _ => None,
    }
}

struct Compiler<'s> {
    source: SourceInfo,
    text: Vec<char>,
    scope: &'s mut Scope,
    /// Names of the macros around the node.
    variables: Vec<String>,
}

impl Compiler<'_> {
    fn node(&mut self, ast: &IdedExpr) -> Result<Node, ExprError> {
        let (start, len) = self.place(ast);
        let at = Node { kind: NodeKind::Constant(Value::Null), start, len };
        let kind = match &ast.expr {
            Ast::Literal(literal) => NodeKind::Constant(constant(literal)),
            Ast::Ident(_) | Ast::Select(_) => self.name(ast, &at)?,
            Ast::Call(call) => self.call(call, &at)?,
            Ast::List(list) => self.list(list)?,
            Ast::Map(map) => self.map(map)?,
            Ast::Comprehension(comprehension) => self.comprehension(comprehension, &at)?,
            Ast::Struct(_) => return at.error("there are no message types here; an object is {\"name\": value}"),
            Ast::Unspecified => return at.error("not an expression"),
        };
        self.fold(Node { kind, ..at })
    }

    /// A node over nothing but constants is one.
    fn fold(&self, node: Node) -> Result<Node, ExprError> {
        if !node.is_constant() {
            return Ok(node);
        }
        let nothing = RowView { bytes: &[], fields: &[] };
        let value = match node.value(nothing, &mut Vec::new()) {
            Ok(value) => value.into_static(),
            Err(fail) => {
                let Fail { message, start, len, .. } = *fail;
                return Err(ExprError { message, start, len });
            }
        };
        Ok(Node { kind: NodeKind::Constant(value), ..node })
    }

    fn name(&mut self, ast: &IdedExpr, at: &Node) -> Result<NodeKind, ExprError> {
        if let Ast::Select(select) = &ast.expr {
            if select.test {
                let plain = IdedExpr {
                    id: ast.id,
                    expr: Ast::Select(cel::common::ast::SelectExpr { test: false, ..select.clone() }),
                };
                return Ok(NodeKind::Has(Box::new(self.node(&plain)?)));
            }
            let of_variable = root_of(&ast.expr).is_none_or(|root| self.variable(root).is_some());
            if of_variable {
                return Ok(NodeKind::Member(Box::new(self.node(&select.operand)?), select.field.clone()));
            }
        }
        let path = path_of(&ast.expr).expect("names and selections of names are paths");
        if let Some(depth) = self.variable(&path) {
            return Ok(NodeKind::Variable(depth));
        }
        match self.scope.resolve(&path) {
            Ok(slot) => Ok(NodeKind::Path(slot)),
            Err(unknown) => at.error(unknown.to_string()),
        }
    }

    /// Whether these are the record's headers: no macro and no select has a name like that.
    fn is_headers(&mut self, ast: &IdedExpr) -> bool {
        matches!(&ast.expr, Ast::Ident(name) if name == HEADERS && self.variable(name).is_none())
            && self.scope.resolve(HEADERS).is_err()
    }

    /// `_headers["content-type"]`.
    fn header(&mut self, name: &IdedExpr, at: &Node) -> Result<NodeKind, ExprError> {
        let Ast::Literal(LiteralValue::String(name)) = &name.expr else {
            return at.error("a header has a name that is known before: `_headers[\"name\"]`");
        };
        match self.scope.resolve(&format!("{HEADERS}.{}", name.inner())) {
            Ok(slot) => Ok(NodeKind::Path(slot)),
            Err(unknown) => at.error(unknown.to_string()),
        }
    }

    /// The innermost variable of that name.
    fn variable(&self, name: &str) -> Option<usize> {
        self.variables.iter().rposition(|known| known == name)
    }

    fn call(&mut self, call: &CallExpr, at: &Node) -> Result<NodeKind, ExprError> {
        if let Some(arithmetic) = arithmetic(&call.func_name) {
            let [left, right] = self.pair(call)?;
            if compute_type(arithmetic, left.type_of(), right.type_of()).is_none() {
                return self.never(at, &left, &right, "are not computed with each other");
            }
            return Ok(NodeKind::Compute(arithmetic, left.into(), right.into()));
        }
        if let Some(order) = order(&call.func_name) {
            let [left, right] = self.pair(call)?;
            if !can_be_ordered(left.type_of(), right.type_of()) {
                return self.never(at, &left, &right, "have no order");
            }
            return Ok(NodeKind::Order(order, left.into(), right.into()));
        }
        Ok(match call.func_name.as_str() {
            operators::EQUALS => {
                let [left, right] = self.pair(call)?;
                NodeKind::Equal(left.into(), right.into())
            }
            operators::NOT_EQUALS => {
                let [left, right] = self.pair(call)?;
                NodeKind::Unequal(left.into(), right.into())
            }
            operators::LOGICAL_AND => {
                let [left, right] = self.booleans(call)?;
                NodeKind::And(left.into(), right.into())
            }
            operators::LOGICAL_OR => {
                let [left, right] = self.booleans(call)?;
                NodeKind::Or(left.into(), right.into())
            }
            operators::LOGICAL_NOT => NodeKind::Not(self.boolean(&call.args[0])?.into()),
            operators::NEGATE => {
                let node = self.node(&call.args[0])?;
                if !matches!(node.type_of(), Type::Any | Type::Number | Type::Duration) {
                    return node.error(format!("{} cannot be negated", node.type_of().name()));
                }
                NodeKind::Negate(node.into())
            }
            operators::CONDITIONAL => {
                let condition = self.boolean(&call.args[0])?;
                let yes = self.node(&call.args[1])?;
                let no = self.node(&call.args[2])?;
                NodeKind::Choose(Box::new([condition, yes, no]))
            }
            operators::INDEX if self.is_headers(&call.args[0]) => self.header(&call.args[1], at)?,
            operators::INDEX => {
                let [of, index] = self.pair(call)?;
                if !matches!(of.type_of(), Type::Any | Type::List | Type::Map | Type::Null) {
                    return of.error(format!("{} has no elements", of.type_of().name()));
                }
                NodeKind::Index(of.into(), index.into())
            }
            operators::IN => {
                let [value, list] = self.pair(call)?;
                if !matches!(list.type_of(), Type::Any | Type::List | Type::Map) {
                    let name = list.type_of().name();
                    return list.error(format!("`in` looks into a list or an object, not into {name}"));
                }
                NodeKind::In(value.into(), list.into())
            }
            _ => self.function(call, at)?,
        })
    }

    fn function(&mut self, call: &CallExpr, at: &Node) -> Result<NodeKind, ExprError> {
        let name = call.func_name.as_str();
        let math =
            call.target.as_ref().is_some_and(|target| matches!(&target.expr, Ast::Ident(name) if name == "math"));
        let receiver = call.target.as_ref().filter(|_| !math);
        let mut args = Vec::with_capacity(call.args.len() + 1);
        for arg in receiver.map(|target| target.as_ref()).into_iter().chain(&call.args) {
            args.push(self.node(arg)?);
        }
        let first = args.first().map_or(Type::Any, Node::type_of);
        let function = match Function::find(name, receiver.is_some(), math, args.len(), first) {
            Ok(function) => function,
            Err(message) => return at.error(message),
        };
        match (function, args.as_mut_slice()) {
            (Function::Matches, [text, Node { kind: NodeKind::Constant(Value::Text(pattern)), start, len }]) => {
                let regex = regex::Regex::new(pattern).map_err(|error| ExprError {
                    message: error.to_string(),
                    start: *start,
                    len: *len,
                })?;
                let text = std::mem::replace(text, Node { kind: NodeKind::Constant(Value::Null), ..at.clone() });
                Ok(NodeKind::Matches(Box::new(text), Box::new(regex)))
            }
            _ => Ok(NodeKind::Call(function, args)),
        }
    }

    fn list(&mut self, list: &ListExpr) -> Result<NodeKind, ExprError> {
        let nodes: Result<Vec<Node>, ExprError> = list.elements.iter().map(|element| self.node(element)).collect();
        Ok(NodeKind::List(nodes?))
    }

    fn map(&mut self, map: &MapExpr) -> Result<NodeKind, ExprError> {
        let mut entries = Vec::with_capacity(map.entries.len());
        for entry in &map.entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else {
                unreachable!("a map has map entries");
            };
            entries.push((self.node(&entry.key)?, self.node(&entry.value)?));
        }
        Ok(NodeKind::Map(entries))
    }

    /// The parser has expanded the macros; here they become macros again, told apart by what they start from.
    fn comprehension(&mut self, one: &ComprehensionExpr, at: &Node) -> Result<NodeKind, ExprError> {
        let range = self.node(&one.iter_range)?;
        if !matches!(range.type_of(), Type::Any | Type::List | Type::Map) {
            return range.error(format!("{} has no elements", range.type_of().name()));
        }
        let Ast::Call(step) = &one.loop_step.expr else {
            return at.error("a macro that is not known here");
        };
        self.variables.push(one.iter_var.clone());
        let does = match (&one.accu_init.expr, step.args.as_slice()) {
            (Ast::Literal(LiteralValue::Boolean(all)), [_, test]) => {
                let test = self.boolean(test)?;
                if *all.inner() { Does::All(test) } else { Does::Exists(test) }
            }
            (Ast::Literal(LiteralValue::Int(_)), [test, _, _]) => Does::ExistsOne(self.boolean(test)?),
            (Ast::List(_), [filter, collect, _]) => {
                let filter = self.boolean(filter)?;
                Does::Collect(Some(filter), self.collected(collect, at)?)
            }
            (Ast::List(_), _) => Does::Collect(None, self.collected(&one.loop_step, at)?),
            _ => return at.error("a macro that is not known here"),
        };
        self.variables.pop();
        Ok(NodeKind::Macro(Box::new(Macro { range, variable: self.variables.len(), does })))
    }

    /// The `x` of `result + [x]`.
    fn collected(&mut self, ast: &IdedExpr, at: &Node) -> Result<Node, ExprError> {
        if let Ast::Call(add) = &ast.expr
            && let [_, list] = add.args.as_slice()
            && let Ast::List(list) = &list.expr
            && let [element] = list.elements.as_slice()
        {
            return self.node(element);
        }
        at.error("a macro that is not known here")
    }

    fn pair(&mut self, call: &CallExpr) -> Result<[Node; 2], ExprError> {
        Ok([self.node(&call.args[0])?, self.node(&call.args[1])?])
    }

    fn booleans(&mut self, call: &CallExpr) -> Result<[Node; 2], ExprError> {
        Ok([self.boolean(&call.args[0])?, self.boolean(&call.args[1])?])
    }

    fn boolean(&mut self, ast: &IdedExpr) -> Result<Node, ExprError> {
        let node = self.node(ast)?;
        match node.type_of() {
            Type::Any | Type::Bool => Ok(node),
            other => node.error(format!("{} where a boolean should be", other.name())),
        }
    }

    fn never<T>(&self, at: &Node, left: &Node, right: &Node, what: &str) -> Result<T, ExprError> {
        at.error(format!("{} and {} {what}", left.type_of().name(), right.type_of().name()))
    }

    /// The characters that a node and all below it stand for.
    fn place(&self, ast: &IdedExpr) -> (u32, u32) {
        let mut range = (u32::MAX, 0);
        self.widen(ast, &mut range);
        let (start, end) = if range.0 > range.1 { (0, self.text.len() as u32) } else { range };
        let end = end.min(self.text.len() as u32);
        (start.min(end), end - start.min(end))
    }

    fn widen(&self, ast: &IdedExpr, range: &mut (u32, u32)) {
        if let Some((start, stop)) = self.source.offset_for(ast.id) {
            range.0 = range.0.min(self.character(start));
            range.1 = range.1.max(self.character(stop + 1));
        }
        match &ast.expr {
            Ast::Call(call) => {
                call.target.iter().for_each(|target| self.widen(target, range));
                call.args.iter().for_each(|arg| self.widen(arg, range));
                if !call.func_name.contains('_') {
                    self.open(&call.func_name, range);
                    self.close(')', range);
                }
            }
            Ast::Select(select) => {
                self.widen(&select.operand, range);
                if !select.test {
                    range.1 = range.1.max(self.end_of_name(range.1, &select.field));
                }
            }
            Ast::List(list) => {
                list.elements.iter().for_each(|element| self.widen(element, range));
                self.close(']', range);
            }
            Ast::Comprehension(one) => self.widen(&one.iter_range, range),
            _ => {}
        }
    }

    /// The parser counts bytes; places are in characters.
    fn character(&self, byte: u32) -> u32 {
        let source = &self.source.source;
        source.char_indices().take_while(|(at, _)| *at < byte as usize).count() as u32
    }

    /// Takes the function's name in, where the parser places the call at its bracket.
    fn open(&self, name: &str, range: &mut (u32, u32)) {
        let name: Vec<char> = name.chars().collect();
        let before = self.text.get(..range.0 as usize).unwrap_or_default();
        if before.ends_with(&name) {
            range.0 -= name.len() as u32;
        }
    }

    /// Takes the bracket in that comes next.
    fn close(&self, bracket: char, range: &mut (u32, u32)) {
        let rest = self.text.iter().skip(range.1 as usize);
        let blanks = rest.take_while(|c| c.is_whitespace()).count() as u32;
        if self.text.get((range.1 + blanks) as usize) == Some(&bracket) {
            range.1 += blanks + 1;
        }
    }

    /// The end of a field's name, where the parser places the selection at its point.
    fn end_of_name(&self, from: u32, name: &str) -> u32 {
        let name: Vec<char> = name.chars().collect();
        let rest = self.text.get(from as usize..).unwrap_or_default();
        if rest.starts_with(&name) { from + name.len() as u32 } else { from }
    }
}

impl Node {
    fn error<T>(&self, message: impl Into<String>) -> Result<T, ExprError> {
        Err(ExprError { message: message.into(), start: self.start, len: self.len })
    }

    /// Whether this is an operation on constants alone. Macros are left to the rows.
    fn is_constant(&self) -> bool {
        let constant = |node: &Node| matches!(node.kind, NodeKind::Constant(_));
        match &self.kind {
            NodeKind::Constant(_) | NodeKind::Path(_) | NodeKind::Variable(_) | NodeKind::Macro(_) => false,
            NodeKind::Not(node) | NodeKind::Negate(node) | NodeKind::Has(node) => constant(node),
            NodeKind::Member(node, _) | NodeKind::Matches(node, _) => constant(node),
            NodeKind::And(left, right) | NodeKind::Or(left, right) => constant(left) && constant(right),
            NodeKind::Equal(left, right) | NodeKind::Unequal(left, right) => constant(left) && constant(right),
            NodeKind::Order(_, left, right) | NodeKind::Compute(_, left, right) => constant(left) && constant(right),
            NodeKind::In(left, right) | NodeKind::Index(left, right) => constant(left) && constant(right),
            NodeKind::Choose(parts) => parts.iter().all(constant),
            NodeKind::Call(_, nodes) | NodeKind::List(nodes) => nodes.iter().all(constant),
            NodeKind::Map(entries) => entries.iter().all(|(name, value)| constant(name) && constant(value)),
        }
    }
}

fn constant(literal: &LiteralValue) -> Value<'static> {
    match literal {
        LiteralValue::Boolean(value) => Value::Bool(*value.inner()),
        LiteralValue::Bytes(value) => Value::Bytes(Cow::Owned(value.inner().to_vec())),
        LiteralValue::Double(value) => Value::Double(*value.inner()),
        LiteralValue::Int(value) => Value::Int(*value.inner()),
        LiteralValue::Null => Value::Null,
        LiteralValue::String(value) => Value::Text(Cow::Owned(value.inner().to_owned())),
        LiteralValue::UInt(value) => Value::Uint(*value.inner()),
    }
}

fn arithmetic(name: &str) -> Option<Arithmetic> {
    Some(match name {
        operators::ADD => Arithmetic::Add,
        operators::SUBSTRACT => Arithmetic::Subtract,
        operators::MULTIPLY => Arithmetic::Multiply,
        operators::DIVIDE => Arithmetic::Divide,
        operators::MODULO => Arithmetic::Modulo,
        _ => return None,
    })
}

fn order(name: &str) -> Option<Order> {
    Some(match name {
        operators::LESS => Order::Less,
        operators::LESS_EQUALS => Order::LessOrEqual,
        operators::GREATER => Order::Greater,
        operators::GREATER_EQUALS => Order::GreaterOrEqual,
        _ => return None,
    })
}

fn can_be_ordered(left: Type, right: Type) -> bool {
    match (left, right) {
        (Type::Null | Type::List | Type::Map, _) | (_, Type::Null | Type::List | Type::Map) => false,
        (Type::Any, _) | (_, Type::Any) => true,
        (left, right) => left == right,
    }
}
