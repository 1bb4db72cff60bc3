//! The tags of agents (`tags.list` of the SDKs).

use axum::Json;
use axum::extract::State;
use holdfast_shared::domain::page::Order;

use crate::App;
use crate::error::ApiError;
use crate::extract::{QueryFields, Tenant};

pub(crate) async fn list(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    query: QueryFields,
) -> Result<Json<Vec<String>>, ApiError> {
    query.check_order_by("name")?;
    let page = query.page_of_texts(50, Order::Ascending)?;
    // `query_text` is the former name of `name`.
    let text = query.one("name").or(query.one("query_text"));
    Ok(Json(app.services.store.tags(&tenant, text, &page).await?))
}
