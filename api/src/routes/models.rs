//! Models (api/04 §4).

use axum::Json;
use axum::extract::State;
use holdfast_shared::wire::model::endpoint_type;
use serde_json::Value;

use super::facts;
use crate::App;
use crate::extract::QueryFields;

pub(crate) async fn list(State(app): State<App>, query: QueryFields) -> Json<Vec<Value>> {
    let models = app.services.catalogue.list().await.into_iter().map(facts);
    let categories: Vec<&str> = query.all("provider_category").collect();
    let is_wanted = categories.is_empty() || categories.contains(&"base");
    let name = query.one("provider_name");
    let kind = query.one("provider_type");
    let wanted = models.filter(|model| {
        is_wanted
            && name.is_none_or(|name| model.provider == name)
            && kind.is_none_or(|kind| endpoint_type(&model.provider) == kind)
    });
    Json(wanted.map(|model| model.listed()).collect())
}

pub(crate) async fn list_embedding() -> Json<Vec<Value>> {
    Json(Vec::new())
}
