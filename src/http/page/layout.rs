//! What every page has around its content.

use maud::{DOCTYPE, Markup, html};

use super::Page;
use super::acts;
use super::assets::{ICON, SCRIPT, STYLE};
use crate::ledger::record::rfc3339;

/// Where a page stands in the navigation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Fleets,
    History,
    Rules,
    Ledger,
    Elsewhere,
}

const PLACES: [(Place, &str, &str); 4] = [
    (Place::Fleets, "/", "Fleets"),
    (Place::History, "/history", "History"),
    (Place::Rules, "/rules", "Rules"),
    (Place::Ledger, "/ledger", "Ledger"),
];

/// A whole page. `say` is what has to be told to who cannot see, when it changes.
pub(super) fn page(page: &Page, place: Place, title: &str, say: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · rollbackd" }
                link rel="icon" href=(ICON.path) type="image/svg+xml";
                link rel="stylesheet" href=(STYLE.path);
                script src=(SCRIPT.path) defer {}
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header.top {
                    a.brand href="/" { "rollbackd" }
                    nav aria-label="Pages" {
                        @for (one, href, name) in PLACES {
                            a href=(href) aria-current=[(one == place).then_some("page")] { (name) }
                        }
                    }
                    p.now {
                        span #link role="status" { "not live" }
                        time #clock data-live datetime=(rfc3339(page.now)) {
                            (clock(&rfc3339(page.now))) " UTC"
                        }
                    }
                }
                p #news .unseen aria-live="polite" {}
                main #content tabindex="-1" data-say=(say) data-seq=(page.view.last_seq) {
                    noscript {
                        p.note {
                            "Without JavaScript this page is as it was when it was loaded, and \
                             nothing can be done from here: "
                            a href="" { "load it again" } "."
                        }
                    }
                    div #ready data-live {
                        @if !page.view.ready {
                            p.note { "rollbackd has not looked yet, or only serves its ledger." }
                        }
                    }
                    (content)
                }
                @if page.may_act { (acts::dialog(page.caller.as_deref())) }
            }
        }
    }
}

/// A page that says one sentence.
pub(super) fn message(on: &Page, title: &str, sentence: &str) -> Markup {
    let content = html! {
        h1 { (title) }
        p { (sentence) }
        p { a href="/" { "To the fleets" } }
    };
    page(on, Place::Elsewhere, title, sentence, &content)
}

/// The time of day in a view's time.
pub(super) fn clock(rfc3339: &str) -> &str {
    rfc3339.get(11..19).unwrap_or(rfc3339)
}

/// A view's time, to the second, as an element.
pub(super) fn time(rfc3339: &str) -> Markup {
    let date = rfc3339.get(..10).unwrap_or_default();
    html! { time datetime=(rfc3339) title={ (date) " " (clock(rfc3339)) " UTC" } { (clock(rfc3339)) } }
}

/// A view's time with its date, as an element.
pub(super) fn date_time(rfc3339: &str) -> Markup {
    let date = rfc3339.get(..10).unwrap_or_default();
    html! { time datetime=(rfc3339) { (date) " " (clock(rfc3339)) } }
}

/// A link to a record.
pub(super) fn record(seq: u64) -> Markup {
    html! { a.record href={ "/ledger/" (seq) } { "record " (seq) } }
}
