//! Messages across agents (api/04 §7).

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use holdfast_shared::domain::message::{MessageType, Role};
use holdfast_shared::domain::page::Order;
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::domain::thread::ThreadScope;
use holdfast_shared::ports::store::{FoundMessage, MessageScope, MessageSearch};
use holdfast_shared::wire::response::shown_each;
use holdfast_shared::wire::search::{SearchRequest, found};

use crate::App;
use crate::error::ApiError;
use crate::extract::{AgentPath, JsonBody, MessagePath, QueryFields, Tenant};

/// Rows of a page that does not say.
const PAGE: u32 = 100;

pub(crate) async fn list(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    query: QueryFields,
) -> Result<Response, ApiError> {
    let include = query.message_types()?;
    query.check_order_by("created_at")?;
    let page = query.page(PAGE, Order::Descending)?;
    let threads = query.threads()?;
    check_known(&app, &tenant, threads).await?;
    let found = app.services.store.find_messages(&tenant, &MessageScope::Threads(threads), &page).await?;
    Ok(show(&found, include.as_deref()))
}

/// All slices of one stored message.
pub(crate) async fn retrieve(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    MessagePath(id): MessagePath,
) -> Result<Response, ApiError> {
    let found = app.services.store.message(&tenant, id).await?.ok_or(ApiError::Unknown("the message"))?;
    Ok(show(&[found], None))
}

pub(crate) async fn search(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let request = SearchRequest::parse(&body)?;
    check_known(&app, &tenant, request.threads).await?;
    let ask = MessageSearch {
        query: Some(request.words.clone()),
        // A request for approval has what the model said and thought before it asked.
        roles: vec![Role::System, Role::User, Role::Assistant, Role::Approval],
        from: request.from,
        until: request.until,
        limit: request.limit,
    };
    let messages = app.services.store.search_all_messages(&tenant, request.agent, request.threads, &ask).await?;
    let told =
        messages.iter().flat_map(|one| found(&one.message, one.conversation, one.speech.as_ref(), &request.words));
    let told: Vec<_> = told.take(request.limit as usize).collect();
    Ok(Json(told).into_response())
}

/// Messages are what was said: nobody changes them afterwards.
pub(crate) async fn refuse_change(_: Tenant, _: AgentPath, _: MessagePath) -> ApiError {
    ApiError::FixedMessage
}

/// Refuses a conversation that does not exist.
async fn check_known(app: &App, tenant: &TenantId, threads: ThreadScope) -> Result<(), ApiError> {
    if let ThreadScope::Conversation(id) = threads {
        app.services.store.conversation(tenant, id).await?.ok_or(ApiError::NO_CONVERSATION)?;
    }
    Ok(())
}

/// Found messages as a list shows them.
pub(super) fn show(found: &[FoundMessage], include: Option<&[MessageType]>) -> Response {
    let each = found.iter().map(|one| (&one.message, one.speech.as_ref()));
    Json(shown_each(each, include)).into_response()
}
