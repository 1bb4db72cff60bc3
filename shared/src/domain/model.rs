//! Models and their names.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The handle of a model: `provider/model`, both sides non-empty (api/04 §1.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelHandle(String);

impl ModelHandle {
    /// The built-in model, which needs no network and no key.
    pub const DEMO: &'static str = "holdfast/demo";

    /// Reads a handle; `None` without a slash, or with an empty side.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (provider, model) = text.split_once('/')?;
        (!provider.is_empty() && !model.is_empty()).then(|| Self(text.to_owned()))
    }

    /// The built-in model.
    #[must_use]
    pub fn demo() -> Self {
        Self(Self::DEMO.to_owned())
    }

    /// The whole handle.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first slash.
    #[must_use]
    pub fn provider(&self) -> &str {
        self.0.split_once('/').map_or("", |(provider, _)| provider)
    }

    /// The part after the first slash: the provider's own name of the model, which may hold slashes.
    #[must_use]
    pub fn model(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, model)| model)
    }
}

impl fmt::Display for ModelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ModelHandle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ModelHandle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a model handle is 'provider/model'"))
    }
}
