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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::node::{self, Content, Node};
    use std::path::Path;

    /// What a document is as JSON; variables and numbers as an editor sees them.
    fn json_of(node: &Node) -> Value {
        match &node.content {
            Content::List(items) => items.iter().map(json_of).collect(),
            Content::Map(entries) => {
                Value::Object(entries.iter().map(|e| (e.key.clone(), json_of(&e.value))).collect())
            }
            Content::Scalar(scalar) if scalar.plain => {
                serde_json::from_str(&scalar.text).unwrap_or_else(|_| json!(scalar.text))
            }
            Content::Scalar(scalar) => json!(scalar.text),
        }
    }

    /// The part of JSON Schema that we write, but for patterns.
    fn fits(schema: &Value, value: &Value, defs: &Value) -> Result<(), String> {
        if let Some(name) = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) {
            fits(&defs[name], value, defs)?;
        }
        if let Some(any) = schema["anyOf"].as_array() {
            let tries: Vec<_> = any.iter().map(|schema| fits(schema, value, defs)).collect();
            if tries.iter().all(Result::is_err) {
                return Err(format!("none fits {value}: {tries:?}"));
            }
        }
        if let Some(words) = schema["enum"].as_array()
            && !words.contains(value)
        {
            return Err(format!("{value} is none of {words:?}"));
        }
        let kind = match value {
            Value::Object(_) => "object",
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_u64() || number.is_i64() => "integer",
            Value::Number(_) => "number",
            Value::Null => "null",
        };
        let allowed = |name: &Value| name == kind || (name == "number" && kind == "integer");
        match &schema["type"] {
            Value::Null => {}
            Value::Array(names) if names.iter().any(allowed) => {}
            name if allowed(name) => {}
            name => return Err(format!("{value} is no {name}")),
        }
        for (key, value) in value.as_object().into_iter().flatten() {
            match (&schema["properties"][key], &schema["additionalProperties"]) {
                (Value::Null, Value::Bool(false)) => return Err(format!("`{key}` is unknown")),
                (Value::Null, Value::Null) => {}
                (Value::Null, others) => fits(others, value, defs)?,
                (field, _) => fits(field, value, defs)?,
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if value[name].is_null() {
                return Err(format!("`{name}` is missing"));
            }
        }
        value.as_array().into_iter().flatten().try_for_each(|item| match &schema["items"] {
            Value::Null => Ok(()),
            items => fits(items, item, defs),
        })
    }

    fn judge(text: &str) -> Result<(), String> {
        let schema = schema();
        let node = node::read(text).0.expect("the document is YAML");
        fits(&schema, &json_of(&node), &schema["$defs"])
    }

    fn examples() -> Vec<std::path::PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        let in_folder = |folder: &Path| {
            let files = std::fs::read_dir(folder).expect("the folder is there");
            files.map(|file| file.expect("a readable entry").path()).collect::<Vec<_>>()
        };
        let mut files = in_folder(&root);
        files.extend(in_folder(&root.join("pipelines")));
        files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
        files.sort();
        files
    }

    #[test]
    fn every_example_fits_the_schema_and_has_no_errors() {
        assert!(examples().len() >= 6);
        for file in examples() {
            let text = std::fs::read_to_string(&file).expect("the example is readable");
            judge(&text).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
            let (plan, findings) = crate::config::parse(&text, &|_| None);
            assert!(plan.is_some(), "{}: {findings:#?}", file.display());
        }
    }

    #[test]
    fn the_schema_refuses_what_the_reader_refuses() {
        let text = std::fs::read_to_string(&examples()[0]).expect("the example is readable");
        for (from, to) in
            [("window", "widow"), ("version: 1", "version: []"), ("table", "tabel"), ("pipelines:", "pipeline:")]
        {
            assert!(judge(&text.replace(from, to)).is_err(), "{from} → {to}");
        }
    }

    #[test]
    fn the_file_beside_the_examples_is_this_schema() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/pipeline.schema.json");
        let kept = std::fs::read_to_string(file).unwrap_or_default();
        assert!(kept == text(), "write it anew: weir schema > config/pipeline.schema.json");
    }
}
