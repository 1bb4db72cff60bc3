//! Who owns a thing. Every query names a tenant, so that a foreign id is an unknown id (G10).

use std::fmt;

/// The owner of agents, runs and all that hangs on them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(String);

impl TenantId {
    /// The tenant of a server that has no API keys.
    pub const DEFAULT: &'static str = "default";

    /// A tenant by name: 1 to 64 letters, digits, `-` or `_`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let is_valid = (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        is_valid.then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TenantId {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
