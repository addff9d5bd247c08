//! The JSON schema of the configuration, for editors. Made from the same tables that the readers use.

use super::grammar::{Field, Object, Shape};
use super::spec::FILE;
use serde_json::{Map, Value, json};

/// The schema of a whole file. What this version does not have is left out.
pub fn schema() -> Value {
    let mut writer = Writer { defs: Map::new(), named: Vec::new() };
    let root = writer.reference(&FILE);
    let mut schema = Map::new();
    schema.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".into(), json!("weir"));
    schema.insert("description".into(), json!(FILE.doc));
    schema.insert("$ref".into(), root["$ref"].clone());
    schema.insert("$defs".into(), Value::Object(writer.defs));
    Value::Object(schema)
}

/// The schema as it is printed and kept in `config/pipeline.schema.json`.
pub fn text() -> String {
    let mut text = serde_json::to_string_pretty(&schema()).expect("a JSON value can be written");
    text.push('\n');
    text
}

/// `${VAR}` stands for anything.
const VARIABLE: &str = "\\$\\{";

struct Writer {
    defs: Map<String, Value>,
    named: Vec<(*const Object, String)>,
}

impl Writer {
    /// Each object is written once; an object may hold itself.
    fn reference(&mut self, object: &'static Object) -> Value {
        let known = self.named.iter().find(|(other, _)| std::ptr::eq(*other, object)).map(|(_, name)| name.clone());
        let name = known.unwrap_or_else(|| {
            let name = self.free_name(object.name);
            self.named.push((object, name.clone()));
            self.defs.insert(name.clone(), Value::Null);
            let definition = self.object(object);
            self.defs.insert(name.clone(), definition);
            name
        });
        json!({ "$ref": format!("#/$defs/{name}") })
    }

    fn free_name(&self, name: &str) -> String {
        let plain = name.trim_matches('`').trim_start_matches("a ").trim_start_matches("the ").replace(' ', "_");
        let numbered = (2..).map(|n| format!("{plain}_{n}"));
        let mut names = std::iter::once(plain.clone()).chain(numbered);
        names.find(|name| !self.defs.contains_key(name)).expect("there is always another number")
    }

    fn object(&mut self, object: &'static Object) -> Value {
        let fields: Vec<&'static Field> = object.fields().filter(|field| field.later.is_none()).collect();
        let mut properties = Map::new();
        for field in &fields {
            properties.insert(field.name.into(), self.field(field));
        }
        let required: Vec<&str> = fields.iter().filter(|field| field.required).map(|field| field.name).collect();
        let mut schema = json!({
            "type": "object",
            "description": object.doc,
            "properties": properties,
            "additionalProperties": false,
        });
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if object.choice {
            schema["minProperties"] = json!(1);
            schema["maxProperties"] = json!(1);
        }
        schema
    }

    fn field(&mut self, field: &'static Field) -> Value {
        let mut schema = self.shape(field.shape);
        let description = match field.default {
            "" => field.doc.to_string(),
            default => format!("{} Default: {default}.", field.doc),
        };
        schema["description"] = json!(description);
        schema
    }

    fn shape(&mut self, shape: Shape) -> Value {
        match shape {
            Shape::Text | Shape::Secret | Shape::Path | Shape::Start => json!({ "type": "string" }),
            Shape::Expression | Shape::Scalar => json!({ "type": ["string", "number", "boolean"] }),
            Shape::Bool => or_variable(json!({ "type": "boolean" })),
            Shape::Int { min, max } => or_variable(json!({ "type": "integer", "minimum": min, "maximum": max })),
            Shape::Duration { min_ms: 0 } => json!({ "anyOf": [duration("0|"), { "const": 0 }] }),
            Shape::SignedDuration => json!({ "anyOf": [duration("0|-?"), { "const": 0 }] }),
            Shape::Duration { .. } => duration(""),
            Shape::DurationOrForever => duration("forever|"),
            Shape::Size { .. } => json!({
                "anyOf": [
                    { "type": "string", "pattern": format!("^[0-9]+ *([KMGT]i?B|B)?$|{VARIABLE}") },
                    { "type": "integer" },
                ],
            }),
            Shape::Word(words) => or_variable(json!({ "enum": words() })),
            Shape::Object(object) => self.reference(object),
            Shape::List(inner) => json!({ "type": "array", "items": self.shape(*inner) }),
            Shape::OneOrList(inner) => {
                let one = self.shape(*inner);
                json!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
            }
            Shape::Map(inner) => json!({ "type": "object", "additionalProperties": self.shape(*inner) }),
            Shape::Either(shapes) => {
                let shapes: Vec<Value> = shapes.iter().map(|shape| self.shape(*shape)).collect();
                json!({ "anyOf": shapes })
            }
            Shape::Unread => json!({}),
        }
    }
}

fn duration(also: &str) -> Value {
    json!({ "type": "string", "pattern": format!("^({also}([0-9]+(ms|s|m|h|d))+)$|{VARIABLE}") })
}

fn or_variable(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "string", "pattern": VARIABLE }] })
}
