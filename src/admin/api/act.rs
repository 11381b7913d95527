//! Actions: `POST /api/v1/pools/NAME/pause` and its kin, for those who have the token. What the console does, is done.

use std::time::Duration;

use hyper::StatusCode;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::super::answer::{self, Answer};
use crate::{console::objects::Action, shared::Snapshot};

/// How long an action may take; a reload reads files and derives keys.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The action that a path below `/api/v1/` stands for; `None` if it is none.
pub(super) fn named(path: &str) -> Option<Action> {
    let parts: Vec<&str> = path.split('/').collect();
    let decoded = |part: &str| percent_decode_str(part).decode_utf8().ok().map(std::borrow::Cow::into_owned);
    match parts.as_slice() {
        ["pools", name, "pause"] => decoded(name).map(Action::Pause),
        ["pools", name, "resume"] => decoded(name).map(Action::Resume),
        ["pools", name, "reconnect"] => decoded(name).map(Action::Reconnect),
        ["clients", id, "kill"] => decoded(id).map(Action::Kill),
        ["reload"] => Some(Action::Reload),
        _ => None,
    }
}

/// Carries an action out.
pub(super) async fn run(action: &Action, snapshot: &Snapshot) -> Answer {
    let (command, object) = action.named();
    tracing::info!(object, "{command} was asked for over HTTP");
    match tokio::time::timeout(TIMEOUT, action.run(snapshot)).await {
        Ok(Ok(changes)) => {
            answer::json(StatusCode::OK, &json!({ "done": command, "object": object, "changes": changes }))
        }
        Ok(Err(reply)) => {
            let status = match &*reply.code {
                "3D000" | "42704" => StatusCode::NOT_FOUND,
                "55000" => StatusCode::CONFLICT,
                "F0000" => StatusCode::UNPROCESSABLE_ENTITY,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            let (code, message, detail, hint) = (&*reply.code, &reply.message, &reply.detail, &reply.hint);
            answer::error_with(
                status,
                &json!({ "sqlstate": code, "message": message, "detail": detail, "hint": hint }),
            )
        }
        Err(_) => {
            let message = format!("{command} has not ended within {} s; it goes on", TIMEOUT.as_secs());
            answer::error(StatusCode::GATEWAY_TIMEOUT, &message, "Look at the log.")
        }
    }
}
