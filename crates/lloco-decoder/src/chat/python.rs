//! What chat templates use of Python: methods of texts and dictionaries, and JSON as Python writes it.

use std::io::{self, Write};

use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Kwargs, ValueKind, from_args},
};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Calls `value.name(args)`.
pub(super) fn method(state: &State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.kind(), value.as_str()) {
        (_, Some(text)) => text_method(text, name, args),
        (ValueKind::Map, _) => map_method(state, value, name, args),
        _ => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> Error {
    Error::new(ErrorKind::UnknownMethod, format!("method {name} is not known"))
}

fn text_method(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let result = match name {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            let drop = |c: char| chars.map_or(c.is_whitespace(), |chars| chars.contains(c));
            let text = if name == "rstrip" { text } else { text.trim_start_matches(drop) };
            if name == "lstrip" { text } else { text.trim_end_matches(drop) }.into()
        }
        "startswith" | "endswith" => {
            let (affix,): (&str,) = from_args(args)?;
            if name == "startswith" { text.starts_with(affix) } else { text.ends_with(affix) }.into()
        }
        "removeprefix" | "removesuffix" => {
            let (affix,): (&str,) = from_args(args)?;
            let rest = if name == "removeprefix" { text.strip_prefix(affix) } else { text.strip_suffix(affix) };
            rest.unwrap_or(text).into()
        }
        "split" => {
            let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
            return split(text, separator, most);
        }
        "replace" => {
            let (from, to): (&str, &str) = from_args(args)?;
            text.replace(from, to).into()
        }
        "upper" => text.to_uppercase().into(),
        "lower" => text.to_lowercase().into(),
        "capitalize" => capitalize(text).into(),
        "title" => text.split_inclusive(|c: char| !c.is_alphabetic()).map(capitalize).collect::<String>().into(),
        "find" => {
            let (needle,): (&str,) = from_args(args)?;
            let at = text.find(needle).and_then(|at| text.get(..at));
            at.map_or(-1, |before| before.chars().count() as i64).into()
        }
        "count" => {
            let (needle,): (&str,) = from_args(args)?;
            text.matches(needle).count().into()
        }
        _ => return Err(unknown(name)),
    };
    Ok(result)
}

/// `text.split(separator, most)`: without a separator at runs of whitespace.
fn split(text: &str, separator: Option<&str>, most: Option<i64>) -> Result<Value, Error> {
    let parts = most.and_then(|most| usize::try_from(most).ok()).map_or(usize::MAX, |most| most.saturating_add(1));
    match separator {
        Some("") => Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        Some(separator) => Ok(text.splitn(parts, separator).map(Value::from).collect()),
        None if parts == usize::MAX => Ok(text.split_whitespace().map(Value::from).collect()),
        None => Err(Error::new(ErrorKind::InvalidOperation, "split needs a separator where it has a limit")),
    }
}

fn capitalize(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().into_iter().flat_map(char::to_uppercase).chain(chars.flat_map(char::to_lowercase)).collect()
}

fn map_method(state: &State<'_, '_>, map: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "items" => {
            let (): () = from_args(args)?;
            state.apply_filter("items", std::slice::from_ref(map))
        }
        "keys" => {
            let (): () = from_args(args)?;
            Ok(map.try_iter()?.collect())
        }
        "values" => {
            let (): () = from_args(args)?;
            map.try_iter()?.map(|key| map.get_item(&key)).collect()
        }
        "get" => {
            let (key, default): (&Value, Option<Value>) = from_args(args)?;
            let found = map.get_item(key)?;
            Ok(if found.is_undefined() { default.unwrap_or_else(|| Value::from(())) } else { found })
        }
        _ => Err(unknown(name)),
    }
}

/// `value | tojson`, with spaces after commas and colons, or indented.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent = options.get::<Option<usize>>("indent")?.map(|width| " ".repeat(width.min(16)));
    options.assert_all_used()?;
    let mut json = Vec::new();
    let written = match &indent {
        Some(indent) => {
            let formatter = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut json, formatter))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut json, Spaced)),
    };
    let failed = |e: String| Error::new(ErrorKind::BadSerialization, e);
    written.map_err(|e| failed(e.to_string()))?;
    String::from_utf8(json).map_err(|e| failed(e.to_string()))
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
