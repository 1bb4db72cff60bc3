//! Reading of JSON bodies field by field. Each node knows its path, so that every refusal can name the field.
//!
//! An explicit `null` is an absent field, and keys that nobody asks for are ignored (api/00 §3).

use std::str::FromStr;

use serde_json::{Map, Value};

/// Why a body is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It has not the form that it should have: 422.
    #[error("{0}")]
    Malformed(String),
    /// It has the form, but says something that cannot be done: 400.
    #[error("{0}")]
    Unacceptable(String),
}

impl BodyError {
    /// A refusal of the value at a path because of what it says.
    #[must_use]
    pub fn unacceptable(path: &str, why: &str) -> Self {
        Self::Unacceptable(format!("INVALID_ARGUMENT: {path}: {why}"))
    }
}

/// A value inside a body and where it stands.
#[derive(Debug, Clone)]
pub struct Node<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Node<'a> {
    /// A whole body, which must be an object.
    ///
    /// # Errors
    /// It is something else.
    pub fn body(value: &'a Value) -> Result<Self, BodyError> {
        let node = Self { value, path: "body".to_owned() };
        node.object()?;
        Ok(node)
    }

    /// The value as sent.
    #[must_use]
    pub const fn value(&self) -> &'a Value {
        self.value
    }

    /// A refusal of this value because of its form.
    #[must_use]
    pub fn malformed(&self, why: &str) -> BodyError {
        BodyError::Malformed(format!("{}: {why}", self.path))
    }

    /// A refusal of this value because of what it says.
    #[must_use]
    pub fn unacceptable(&self, why: &str) -> BodyError {
        BodyError::unacceptable(&self.path, why)
    }

    /// Where the value stands.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A field of this object, unless it is absent or null, or this is no object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Self> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        Some(Self { value, path: format!("{}.{name}", self.path) })
    }

    /// Whether the field is there and not null.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.value.get(name).is_some_and(|value| !value.is_null())
    }

    /// A field that must be there.
    ///
    /// # Errors
    /// It is absent or null.
    pub fn required(&self, name: &str) -> Result<Self, BodyError> {
        self.get(name).ok_or_else(|| BodyError::Malformed(format!("{}.{name}: this field is required", self.path)))
    }

    /// This value as an object.
    ///
    /// # Errors
    /// It is something else.
    pub fn object(&self) -> Result<&'a Map<String, Value>, BodyError> {
        self.value.as_object().ok_or_else(|| self.malformed("must be an object"))
    }

    /// The fields of this object, also those that are null.
    ///
    /// # Errors
    /// It is no object.
    pub fn fields(&self) -> Result<Vec<(&'a str, Self)>, BodyError> {
        let field = |(name, value): (&'a String, &'a Value)| {
            (name.as_str(), Self { value, path: format!("{}.{name}", self.path) })
        };
        Ok(self.object()?.iter().map(field).collect())
    }

    /// This value as a string.
    ///
    /// # Errors
    /// It is something else.
    pub fn string(&self) -> Result<&'a str, BodyError> {
        self.value.as_str().ok_or_else(|| self.malformed("must be a string"))
    }

    /// This value as a boolean.
    ///
    /// # Errors
    /// It is something else.
    pub fn boolean(&self) -> Result<bool, BodyError> {
        self.value.as_bool().ok_or_else(|| self.malformed("must be true or false"))
    }

    /// This value as a whole number in any JSON spelling: `5.0` is 5. What does not fit is brought to the nearest end.
    ///
    /// # Errors
    /// It is no number, or has a fraction.
    pub fn whole(&self) -> Result<i64, BodyError> {
        if let Some(number) = self.value.as_i64() {
            return Ok(number);
        }
        let whole = self.value.as_f64().filter(|number| number.fract() == 0.0);
        // The cast saturates, as promised; a number beyond 2^53 is no limit that anybody means exactly.
        whole.map(|number| number as i64).ok_or_else(|| self.malformed("must be a whole number"))
    }

    /// This value as a whole number that is at least `least`.
    ///
    /// # Errors
    /// It is not.
    pub fn at_least(&self, least: u32) -> Result<u64, BodyError> {
        let number = self.whole()?;
        u64::try_from(number)
            .ok()
            .filter(|number| *number >= u64::from(least))
            .ok_or_else(|| self.malformed(&format!("must be at least {least}")))
    }

    /// This value as one of these words.
    ///
    /// # Errors
    /// It is none of them.
    pub fn one_of(&self, words: &[&str]) -> Result<&'a str, BodyError> {
        let word = self.string()?;
        if words.contains(&word) { Ok(word) } else { Err(self.malformed(&format!("must be one of {}", quoted(words)))) }
    }

    /// The items of this array.
    ///
    /// # Errors
    /// It is no array.
    pub fn items(&self) -> Result<Vec<Self>, BodyError> {
        let items = self.value.as_array().ok_or_else(|| self.malformed("must be an array"))?;
        let node = |(index, value)| Self { value, path: format!("{}[{index}]", self.path) };
        Ok(items.iter().enumerate().map(node).collect())
    }

    /// The strings of this array.
    ///
    /// # Errors
    /// It is no array, or something in it is no string.
    pub fn strings(&self) -> Result<Vec<String>, BodyError> {
        self.items()?.iter().map(|item| item.string().map(str::to_owned)).collect()
    }

    /// This value as something that is written as a string.
    ///
    /// # Errors
    /// It is no string, or not one of that form.
    pub fn parsed<T: FromStr>(&self) -> Result<T, BodyError>
    where
        T::Err: std::fmt::Display,
    {
        self.string()?.parse().map_err(|error: T::Err| self.malformed(&error.to_string()))
    }

    /// An optional string field.
    ///
    /// # Errors
    /// It is something else.
    pub fn optional_string(&self, name: &str) -> Result<Option<String>, BodyError> {
        self.get(name).map(|node| node.string().map(str::to_owned)).transpose()
    }

    /// A required string field.
    ///
    /// # Errors
    /// It is absent or something else.
    pub fn required_string(&self, name: &str) -> Result<&'a str, BodyError> {
        self.required(name)?.string()
    }

    /// A boolean field with a default.
    ///
    /// # Errors
    /// It is something else.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, BodyError> {
        self.get(name).map_or(Ok(default), |node| node.boolean())
    }

    /// An optional array of strings; absent is empty.
    ///
    /// # Errors
    /// It is something else.
    pub fn string_list(&self, name: &str) -> Result<Vec<String>, BodyError> {
        self.get(name).map_or_else(|| Ok(Vec::new()), |node| node.strings())
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(", ")
}

/// Removes NUL characters from all strings of a value, keys included: databases cannot keep them (api/04 §3).
pub fn remove_nuls(value: &mut Value) {
    match value {
        Value::String(text) => {
            if text.contains('\0') {
                text.retain(|character| character != '\0');
            }
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nuls),
        Value::Object(fields) => {
            if fields.keys().any(|key| key.contains('\0')) {
                let cleaned = std::mem::take(fields).into_iter();
                *fields = cleaned.map(|(key, value)| (key.replace('\0', ""), value)).collect();
            }
            fields.values_mut().for_each(remove_nuls);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nuls_go_wherever_they_stand() {
        let mut value = json!({"a\0": ["x\0y", {"b": "\0"}]});
        remove_nuls(&mut value);
        assert_eq!(value, json!({"a": ["xy", {"b": ""}]}));
    }

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        for (sent, expected) in [(json!(5), Some(5)), (json!(5.0), Some(5)), (json!(5.5), None), (json!("5"), None)] {
            let body = json!({ "n": sent });
            let node = Node::body(&body).and_then(|body| body.required("n")).expect("the field is there");
            assert_eq!(node.whole().ok(), expected, "{body}");
        }
    }
}
