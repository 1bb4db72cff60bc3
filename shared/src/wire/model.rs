//! Models in lists, and the model configuration of an agent (api/04 §4).

use serde_json::{Map, Value, json};

use crate::domain::model::ModelHandle;

/// What is known of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFacts {
    /// Its handle.
    pub handle: ModelHandle,
    /// Name of the provider.
    pub provider: String,
    /// The provider's name of the model.
    pub name: String,
    /// Most tokens of a call.
    pub context_window: u64,
    /// Where it is called.
    pub endpoint: Option<String>,
}

/// Context window of a model that the catalogue does not know (any more).
const UNKNOWN_CONTEXT_WINDOW: u64 = 128_000;

/// The words that SDKs know for the kind of a model's interface.
pub const ENDPOINT_TYPES: [&str; 21] = [
    "openai",
    "anthropic",
    "google_ai",
    "google_vertex",
    "azure",
    "groq",
    "ollama",
    "webui",
    "lmstudio",
    "llamacpp",
    "koboldcpp",
    "vllm",
    "hugging-face",
    "mistral",
    "together",
    "bedrock",
    "deepseek",
    "xai",
    "baseten",
    "fireworks",
    "openrouter",
];

/// The kind of interface of a provider: a closed list, so that what is not in it counts as compatible with `openai`.
#[must_use]
pub fn endpoint_type(provider: &str) -> &'static str {
    ENDPOINT_TYPES.into_iter().find(|word| *word == provider).unwrap_or("openai")
}

impl ModelFacts {
    /// The facts of a model that the catalogue does not know: what its handle says.
    #[must_use]
    pub fn unknown(handle: &ModelHandle) -> Self {
        Self {
            handle: handle.clone(),
            provider: handle.provider().to_owned(),
            name: handle.model().to_owned(),
            context_window: UNKNOWN_CONTEXT_WINDOW,
            endpoint: None,
        }
    }

    /// `LlmConfig` with the options of an agent, or the defaults.
    #[must_use]
    pub fn llm_config(&self, options: &LlmOptions) -> Map<String, Value> {
        let context_window = options.context_window_limit.unwrap_or(self.context_window);
        object(json!({
            "model": self.name,
            "model_endpoint_type": endpoint_type(&self.provider),
            "model_endpoint": self.endpoint,
            "context_window": context_window,
            "handle": self.handle,
            "provider_name": self.provider,
            "provider_category": "base",
            "put_inner_thoughts_in_kwargs": false,
            "temperature": options.temperature.clone().unwrap_or(Value::Null),
            "max_tokens": options.max_tokens.clone().unwrap_or(Value::Null),
            "enable_reasoner": options.enable_reasoner.clone().unwrap_or(Value::Bool(false)),
            "reasoning_effort": options.reasoning_effort.clone().unwrap_or(Value::Null),
            "max_reasoning_tokens": options.max_reasoning_tokens.clone().unwrap_or_else(|| json!(0)),
            "frequency_penalty": null,
            "parallel_tool_calls": options.parallel_tool_calls.clone().unwrap_or(Value::Bool(false)),
            "response_format": options.response_format.clone().unwrap_or(Value::Null),
        }))
    }

    /// `Model`, as lists show it.
    #[must_use]
    pub fn listed(&self) -> Value {
        let mut model = self.llm_config(&LlmOptions::default());
        model.extend(object(json!({
            "name": self.name,
            "display_name": self.name,
            "provider_type": endpoint_type(&self.provider),
            "max_context_window": self.context_window,
            "model_type": "llm",
        })));
        Value::Object(model)
    }
}

/// Options of an agent that its `llm_config` shows.
#[derive(Debug, Clone, Default)]
pub struct LlmOptions {
    /// See the contract.
    pub context_window_limit: Option<u64>,
    /// See the contract.
    pub temperature: Option<Value>,
    /// See the contract.
    pub max_tokens: Option<Value>,
    /// See the contract.
    pub parallel_tool_calls: Option<Value>,
    /// See the contract.
    pub response_format: Option<Value>,
    /// See the contract.
    pub enable_reasoner: Option<Value>,
    /// See the contract.
    pub reasoning_effort: Option<Value>,
    /// See the contract.
    pub max_reasoning_tokens: Option<Value>,
}

/// The fields of an object literal.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => {
            debug_assert!(false, "not an object: {other}");
            Map::new()
        }
    }
}
