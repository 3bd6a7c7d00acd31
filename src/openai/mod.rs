//! The few things sedge reads of OpenAI's API: `model` and `stream` in a request, the side band of an answer (usage,
//! finish reason, error, `[DONE]`), and the shape of an error. Everything else passes unseen.
