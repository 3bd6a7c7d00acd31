//! Which of LiteLLM's providers speak OpenAI's API themselves, and where: the others it translates, and sedge does not.

/// A provider that can be asked directly.
pub(crate) struct Provider {
    /// LiteLLM's prefix, before the slash.
    pub(crate) prefix: &'static str,
    /// Where it is, if nothing else is said; none for what runs anywhere.
    pub(crate) base: Option<&'static str>,
    /// The variable with its key, if nothing else is said.
    pub(crate) key: Option<&'static str>,
    /// What stands behind an `api_base` that has no path.
    pub(crate) path: &'static str,
}

const fn hosted(prefix: &'static str, base: &'static str, key: &'static str) -> Provider {
    Provider { prefix, base: Some(base), key: Some(key), path: "" }
}

const fn anywhere(prefix: &'static str, path: &'static str) -> Provider {
    Provider { prefix, base: None, key: None, path }
}

/// Bases and variables as LiteLLM's documentation has them (docs.litellm.ai/docs/providers).
const PROVIDERS: [Provider; 15] = [
    hosted("openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
    hosted("text-completion-openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
    hosted("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    hosted("mistral", "https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    hosted("deepseek", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    hosted("together_ai", "https://api.together.xyz/v1", "TOGETHERAI_API_KEY"),
    hosted("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    hosted("xai", "https://api.x.ai/v1", "XAI_API_KEY"),
    hosted("nvidia_nim", "https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
    anywhere("hosted_vllm", ""),
    anywhere("openai_like", ""),
    anywhere("custom_openai", ""),
    anywhere("lm_studio", ""),
    // Their own API stands at the root, OpenAI's below /v1.
    anywhere("ollama", "/v1"),
    anywhere("ollama_chat", "/v1"),
];

/// The provider of `model`, and the model's name there. A name without a prefix is OpenAI's.
pub(crate) fn of(model: &str) -> Option<(&'static Provider, &str)> {
    let (prefix, name) = model.split_once('/').unwrap_or(("openai", model));
    PROVIDERS.iter().find(|provider| provider.prefix == prefix).map(|provider| (provider, name))
}
