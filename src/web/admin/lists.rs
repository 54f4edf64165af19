//! Who and what is there: lists for an operator, a page at a time.

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::Uri;
use axum::routing::MethodRouter;
use axum::routing::get;
use serde_json::Value;
use serde_json::json;

use super::Inner;
use super::Outcome;
use super::Refusal;
use super::State;
use super::answer;
use super::read_gateway;
use super::read_name;
use crate::metrics::Gateway;
use crate::signaling::hub::listing::Member;
use crate::signaling::hub::listing::Room;
use crate::signaling::name::Name;
use crate::signaling::session::Sessions;
use crate::turn::status::Allocation;

/// How much of a list one answer has, unless it is asked for otherwise.
const PAGE: usize = 100;
/// The same at most.
const MAX_PAGE: usize = 1000;

/// All lists.
pub(super) fn routes(state: &State) -> Router {
    let allocations = state.clone();
    let allocations = move |request: Request| {
        let state = allocations.clone();
        async move {
            let asked = state.0.asked(&request);
            // Its body is nobody's while the control plane is asked.
            drop(request);
            match asked {
                Ok(asked) => answer(state.0.allocations(&asked).await),
                Err(refused) => answer(Err(refused)),
            }
        }
    };
    let overview = state.clone();
    let overview = move |request: Request| {
        let state = overview.clone();
        async move {
            let admitted = state.0.admit(&request);
            drop(request);
            match admitted {
                Ok(()) => answer(Ok(json!(state.0.overview.status().await))),
                Err(refused) => answer(Err(refused)),
            }
        }
    };
    Router::new()
        .route("/admin/status", get(overview))
        .route("/admin/members", list(state, |inner, asked| inner.named("members", asked, Sessions::members)))
        .route("/admin/rooms", list(state, |inner, asked| inner.named("rooms", asked, Sessions::rooms)))
        .route("/admin/allocations", get(allocations))
}

fn list(state: &State, page: fn(&Inner, &Asked) -> Outcome) -> MethodRouter {
    let state = state.clone();
    get(async move |request: Request| answer(state.0.asked(&request).and_then(|asked| page(&state.0, &asked))))
}

/// Which page of a list is asked for.
struct Asked {
    gateway: Option<Gateway>,
    after: Option<String>,
    limit: usize,
}

impl Asked {
    fn read(uri: &Uri) -> Result<Self, Refusal> {
        let mut asked = Self { gateway: None, after: None, limit: PAGE };
        for (key, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            match &*key {
                "gateway" => asked.gateway = Some(read_gateway(&value)?),
                "after" => asked.after = Some(value.into_owned()),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit));
                    asked.limit = limit.ok_or((StatusCode::BAD_REQUEST, "limit is a number from 1 to 1000"))?;
                }
                _ => {
                    return Err((
                        StatusCode::BAD_REQUEST,
                        "a list takes after and limit, and all but allocations gateway",
                    ));
                }
            }
        }
        Ok(asked)
    }
}

/// An `after` that no answer had as `next`.
const NOWHERE: Refusal = (StatusCode::BAD_REQUEST, "after is what an answer had as \"next\"");

/// What has a name in a gateway.
trait Named {
    fn name(&self) -> &Name;
    fn show(&self, gateway: Gateway) -> Value;
}

impl Named for Member {
    fn name(&self) -> &Name {
        &self.name
    }

    fn show(&self, gateway: Gateway) -> Value {
        json!({
            "name": self.name.as_str(),
            "gateway": gateway.label(),
            "session": self.session.to_string(),
            "account": self.account.as_ref().map(Name::as_str),
            "source": self.source,
            "since": self.since.as_secs(),
            "away": self.is_away,
            "rooms": self.rooms.iter().map(Name::as_str).collect::<Vec<_>>(),
        })
    }
}

impl Named for Room {
    fn name(&self) -> &Name {
        &self.name
    }

    fn show(&self, gateway: Gateway) -> Value {
        json!({ "name": self.name.as_str(), "gateway": gateway.label(), "members": self.members })
    }
}

impl Inner {
    fn asked(&self, request: &Request) -> Result<Asked, Refusal> {
        self.admit(request)?;
        Asked::read(request.uri())
    }

    /// A page of what has names, gateway by gateway.
    fn named<T: Named>(
        &self,
        what: &str,
        asked: &Asked,
        list: fn(&Sessions, Option<&Name>, usize) -> Vec<T>,
    ) -> Outcome {
        let after = asked.after.as_deref().map(read_cursor).transpose()?;
        let after = after.as_ref();
        // One more than is told tells whether there are more.
        let wanted = asked.limit + 1;
        if asked.gateway.zip(after).is_some_and(|(only, (at, _))| only != *at) {
            return Err((StatusCode::BAD_REQUEST, "after is of another gateway than the one that is asked for"));
        }
        let mut found = Vec::new();
        for context in self.gateways.iter().skip_while(|there| after.is_some_and(|(at, _)| *at != there.gateway)) {
            if found.len() == wanted {
                break;
            }
            let gateway = context.gateway;
            if asked.gateway.is_none_or(|only| only == gateway) {
                let after = after.filter(|(at, _)| *at == gateway).map(|(_, name)| name);
                let more = list(&context.sessions, after, wanted - found.len());
                found.extend(more.into_iter().map(|entry| (gateway, entry)));
            }
        }
        let has_more = found.len() > asked.limit;
        found.truncate(asked.limit);
        let last = found.last().filter(|_| has_more);
        let next = last.map(|(gateway, entry)| format!("{}/{}", gateway.label(), entry.name().as_str()));
        let entries: Vec<_> = found.iter().map(|(gateway, entry)| entry.show(*gateway)).collect();
        Ok(json!({ what: entries, "next": next }))
    }

    async fn allocations(&self, asked: &Asked) -> Outcome {
        if asked.gateway.is_some() {
            return Err((StatusCode::BAD_REQUEST, "allocations are of no gateway"));
        }
        let after = asked.after.as_deref().map_or(Ok(0), |after| after.parse().map_err(|_| NOWHERE))?;
        let mut found = self.status.allocations(after, asked.limit + 1).await;
        let has_more = found.len() > asked.limit;
        found.truncate(asked.limit);
        let next = found.last().filter(|_| has_more).map(|last| last.id.to_string());
        let entries: Vec<_> = found.iter().map(show).collect();
        Ok(json!({ "allocations": entries, "next": next }))
    }
}

/// From where a page goes on.
fn read_cursor(after: &str) -> Result<(Gateway, Name), Refusal> {
    let (gateway, name) = after.split_once('/').ok_or(NOWHERE)?;
    Ok((read_gateway(gateway)?, read_name(name)?))
}

fn show(allocation: &Allocation) -> Value {
    let Allocation { id, client, transport, relayed, username, session, expires_in, traffic } = allocation;
    let [to_peers, to_client] =
        [traffic.to_peers, traffic.to_client].map(|flow| json!({ "packets": flow.packets, "bytes": flow.bytes }));
    json!({
        "id": id,
        "transport": transport,
        "client": client.client,
        "server": client.server,
        "relayed": relayed,
        "username": username,
        "session": session.map(|session| session.to_string()),
        "expiresIn": expires_in.as_secs(),
        "toPeers": to_peers,
        "toClient": to_client,
    })
}
