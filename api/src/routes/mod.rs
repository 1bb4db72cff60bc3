//! Handlers: they read a request, call a command or a port, and show the answer.

use holdfast_shared::domain::model::ModelHandle;
use holdfast_shared::models::ModelInfo;
use holdfast_shared::wire::model::ModelFacts;

use crate::App;

pub(crate) mod agents;
pub(crate) mod blocks;
pub(crate) mod conversations;
pub(crate) mod docs;
pub(crate) mod health;
pub(crate) mod history;
pub(crate) mod messages;
pub(crate) mod models;
pub(crate) mod runs;
pub(crate) mod steps;
pub(crate) mod tags;
pub(crate) mod tools;

/// What the catalogue knows, as answers show it.
fn facts(info: ModelInfo) -> ModelFacts {
    let ModelInfo { handle, provider, name, context_window, endpoint } = info;
    ModelFacts { handle, provider, name, context_window, endpoint }
}

/// What the catalogue knows of some models; one look-up for a whole page.
struct KnownModels(Vec<ModelFacts>);

impl KnownModels {
    async fn of(app: &App) -> Self {
        Self(app.services.catalogue.list().await.into_iter().map(facts).collect())
    }

    fn get(&self, handle: &ModelHandle) -> ModelFacts {
        let known = self.0.iter().find(|model| model.handle == *handle);
        known.cloned().unwrap_or_else(|| ModelFacts::unknown(handle))
    }
}
