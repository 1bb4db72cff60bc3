//! Models (api/04 §4).

use axum::Json;
use axum::extract::State;
use holdfast_shared::wire::model::endpoint_type;
use serde_json::Value;

use super::facts;
use crate::App;
use crate::error::ApiError;
use crate::extract::QueryFields;

pub(crate) async fn list(State(app): State<App>, query: QueryFields) -> Result<Json<Vec<Value>>, ApiError> {
    let models = app.services.catalogue.list().await.into_iter().map(facts);
    // All models here are of the server's own providers.
    let is_base = |word: &str| ["base", "byok"].contains(&word).then(|| word == "base");
    let categories = query.words("provider_category", is_base)?;
    let is_wanted = categories.is_empty() || categories.contains(&true);
    let name = query.one("provider_name");
    let kind = query.one("provider_type");
    let wanted = models.filter(|model| {
        is_wanted
            && name.is_none_or(|name| model.provider == name)
            && kind.is_none_or(|kind| endpoint_type(&model.provider) == kind)
    });
    Ok(Json(wanted.map(|model| model.listed()).collect()))
}

pub(crate) async fn list_embedding() -> Json<Vec<Value>> {
    Json(Vec::new())
}
