//! A JSON object read field by field, with errors that name file and field.

use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::Path;

/// A JSON object whose errors name the file and the field.
pub(crate) struct Fields<'a> {
    object: Map<String, Value>,
    origin: &'a Path,
}

impl<'a> Fields<'a> {
    pub(crate) fn read(path: &'a Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Self::parse(&text, path)
    }

    pub(crate) fn parse(json: &str, origin: &'a Path) -> Result<Self> {
        let object = serde_json::from_str(json).map_err(|e| Error::malformed(origin, e))?;
        Ok(Self { object, origin })
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, field: &str) -> Result<T> {
        self.optional(field)?.ok_or_else(|| self.malformed(format!("field `{field}` is missing")))
    }

    pub(crate) fn get_or<T: DeserializeOwned>(&self, field: &str, default: T) -> Result<T> {
        Ok(self.optional(field)?.unwrap_or(default))
    }

    /// The field's value; none where it is absent or null.
    pub(crate) fn optional<T: DeserializeOwned>(&self, field: &str) -> Result<Option<T>> {
        match self.object.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(value).map(Some).map_err(|e| self.malformed(format!("field `{field}`: {e}"))),
        }
    }

    /// Names of the fields set to `true`.
    pub(crate) fn enabled(&self) -> Vec<&str> {
        let on = self.object.iter().filter(|(_, value)| **value == true);
        on.map(|(name, _)| name.as_str()).collect()
    }

    pub(crate) fn require(&self, field: &str, allowed: &[&str], supported: &'static str) -> Result<()> {
        self.get::<Value>(field)?;
        self.allow(field, allowed, supported)
    }

    pub(crate) fn allow(&self, field: &str, allowed: &[&str], supported: &'static str) -> Result<()> {
        match self.object.get(field) {
            None | Some(Value::Null) => Ok(()),
            Some(Value::String(value)) if allowed.contains(&value.as_str()) => Ok(()),
            Some(_) => Err(self.unsupported(field, supported)),
        }
    }

    pub(crate) fn reject_true(&self, field: &str) -> Result<()> {
        match self.object.get(field) {
            None | Some(Value::Null | Value::Bool(false)) => Ok(()),
            Some(_) => Err(self.unsupported(field, "false")),
        }
    }

    pub(crate) fn reject_present(&self, field: &str) -> Result<()> {
        match self.object.get(field) {
            None | Some(Value::Null) => Ok(()),
            Some(Value::Object(value)) if value.is_empty() => Ok(()),
            Some(_) => Err(self.unsupported(field, "none")),
        }
    }

    pub(crate) fn unsupported(&self, field: &str, supported: &'static str) -> Error {
        let found = self.object.get(field).unwrap_or(&Value::Null);
        Error::Unsupported {
            path: self.origin.to_owned(),
            field: field.to_owned(),
            found: found.to_string(),
            supported,
        }
    }

    pub(crate) fn malformed(&self, detail: impl ToString) -> Error {
        Error::malformed(self.origin, detail)
    }
}
