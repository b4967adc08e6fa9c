//! The web page: what the API has, for people.
//!
//! Written on the server from the same view as the API, complete without JavaScript. With it, the
//! page asks for itself again when the event stream says so, and puts in what has changed.
//!
//! **Invariant:** everything from outside is a value in a template, which escapes it. There is no
//! inline script and no inline style, and the content security policy allows none.

mod acts;
pub(super) mod assets;
mod fleet;
mod history;
mod layout;
mod overview;
mod plot;
mod record;
mod rollback;
mod rules;
mod standing;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use maud::Markup;

pub(super) use self::record::{ledger, record};
use super::{App, Caller};
use crate::domain::role::Role;
use crate::domain::time::Timestamp;
use crate::ports::view::View;

/// What a page may load: its own style, script and data, and nothing else from anywhere.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
     connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// What every page is written from.
struct Page {
    view: Arc<View>,
    /// Who looks, where the credentials name one.
    caller: Option<String>,
    /// Whether who looks may also act.
    may_act: bool,
    /// Whole seconds.
    now: Timestamp,
}

impl Page {
    fn new(app: &App, caller: &Caller) -> Self {
        Self {
            view: app.view(),
            caller: caller.name.clone(),
            may_act: caller.roles.has(Role::Operate),
            now: app.clock.now().align_down(Duration::from_secs(1)),
        }
    }

    /// Whether both are written alike.
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.view, &other.view)
            && (&self.caller, self.may_act, self.now) == (&other.caller, other.may_act, other.now)
    }
}

/// The first page as it was written last.
///
/// Every browser that follows asks for it at the same moment: they are given the same one.
#[derive(Default)]
pub(super) struct Written(Mutex<Option<(Page, Bytes)>>);

impl Written {
    fn of(&self, page: Page) -> Bytes {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, text)) = last.as_ref()
            && known.is_same(&page)
        {
            return text.clone();
        }
        let text = Bytes::from(overview::page(&page).0);
        *last = Some((page, text.clone()));
        text
    }
}

/// `GET /`
pub(super) async fn overview(State(app): State<Arc<App>>, caller: Caller) -> Response {
    sent(StatusCode::OK, app.written.of(Page::new(&app, &caller)))
}

/// `GET /fleets/{fleet}`
pub(super) async fn fleet(
    State(app): State<Arc<App>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Response {
    let page = Page::new(&app, &caller);
    let name = path.map(|Path(name)| name).unwrap_or_default();
    match page.view.fleets.get(&name) {
        Some(fleet) => answer(StatusCode::OK, overview::fleet_page(&page, fleet)),
        None => missing(&page, &format!("There is no fleet {name}.")),
    }
}

/// `GET /history`
pub(super) async fn history(State(app): State<Arc<App>>, caller: Caller) -> Response {
    answer(StatusCode::OK, history::page(&Page::new(&app, &caller)))
}

/// `GET /rules`
pub(super) async fn rules(State(app): State<Arc<App>>, caller: Caller) -> Response {
    answer(StatusCode::OK, rules::page(&Page::new(&app, &caller)))
}

/// What is asked for is not there.
fn missing(page: &Page, sentence: &str) -> Response {
    answer(StatusCode::NOT_FOUND, layout::message(page, "Not found", sentence))
}

fn answer(status: StatusCode, page: Markup) -> Response {
    sent(status, page.0.into())
}

fn sent(status: StatusCode, page: Bytes) -> Response {
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    (status, headers, Html(page)).into_response()
}
