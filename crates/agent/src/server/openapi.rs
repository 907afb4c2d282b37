//! Describes the API in OpenAPI 3.1, from the types that travel: `GET /v1/openapi.json`.
//!
//! Each operation is one entry here or in the `operations` of the file that has its route. A test holds that every
//! route is described and that every description has its route. The types describe themselves (`ToSchema`); the
//! operations are told here and not by attributes of their functions, which are generic over the agent.

use super::{config, drills, lists, matrix, orders, path, pools, services, support, vrrp};
use axum::Json;
use buoy_api::{PROBLEM_TYPE, Problem, REASON_MAX, STREAM_TYPE};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

/// What a segment of a path may be: what the guard lets pass, but that a name may begin with a dot or have a slash.
const NAME: &str = "^[^./\\u0000-\\u001f\\u007f-\\u009f][^/\\u0000-\\u001f\\u007f-\\u009f]*$";

/// One thing that can be asked.
#[derive(Debug)]
pub(super) struct Operation {
    method: &'static str,
    path: &'static str,
    value: Value,
    schemas: Vec<(String, Value)>,
}

impl Operation {
    /// `id` is its name in generated clients; the path has its parameters as `{name}`.
    pub(super) fn new(method: &'static str, path: &'static str, id: &str, summary: &str) -> Self {
        let names = path.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}'));
        let parameters: Vec<Value> = names
            .map(|name| {
                let text = json!({ "type": "string", "pattern": NAME });
                json!({ "name": name, "in": "path", "required": true, "schema": text,
                        "description": described(name) })
            })
            .collect();
        let problem = json!({
            "description": "A refusal, with what to do about it.",
            "content": { PROBLEM_TYPE: { "schema": reference::<Problem>(), "example": example() } },
        });
        let value = json!({
            "operationId": id,
            "summary": summary,
            "parameters": parameters,
            "responses": { "default": problem },
        });
        Self { method, path, value, schemas: Vec::new() }
    }

    /// What it answers with when all is well.
    pub(super) fn answers<T: ToSchema>(mut self) -> Self {
        self.value["responses"]["200"]["description"] = json!("The answer.");
        self.value["responses"]["200"]["content"]["application/json"]["schema"] = reference::<T>();
        self.keep::<T>();
        self
    }

    /// An answer that is no JSON of a type.
    pub(super) fn answers_with(mut self, media: &str, schema: Value) -> Self {
        self.value["responses"]["200"]["description"] = json!("The answer.");
        self.value["responses"]["200"]["content"][media]["schema"] = schema;
        self
    }

    /// Its answer has the tag that a change may name.
    pub(super) fn tagged(mut self) -> Self {
        let tag =
            json!({ "schema": { "type": "string" }, "description": "For `If-Match` of a change." });
        self.value["responses"]["200"]["headers"]["ETag"] = tag;
        self
    }

    /// Who has it already names its tag, and is told that it is still the same.
    pub(super) fn unless_known(mut self) -> Self {
        let tag = json!({ "schema": { "type": "string" }, "description": "For `If-None-Match` of the next question." });
        self.add(json!({
            "name": "If-None-Match", "in": "header", "schema": { "type": "string" },
            "description": "The `ETag` of what is known already.",
        }));
        self.value["responses"]["304"] =
            json!({ "description": "Nothing is another but ages and counters." });
        for status in ["200", "304"] {
            self.value["responses"][status]["headers"]["ETag"] = tag.clone();
        }
        self
    }

    /// It is a list: it can be waited for, and followed.
    pub(super) fn list(self) -> Self {
        let this = self
            .query("wait", json!({ "type": "string", "pattern": "^([1-5]?[0-9]s|[1-9][0-9]{0,3}ms)$" }),
                "Answer when there are news, and after so long at the latest: `30s`, at most `60s`.")
            .query("since", json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX }),
                "The `revision` that is known already.");
        let revision = json!({ "schema": { "type": "integer" }, "description": "For `since`, also where the answer has no such `revision`." });
        let mut this = this;
        this.value["responses"]["200"]["headers"]["Buoy-Revision"] = revision;
        let stream = "Each change as an event, from `Last-Event-ID` on; `every=1s` tells again without news.";
        this.answers_with(STREAM_TYPE, json!({ "type": "string", "description": stream }))
    }

    /// It is a list, and may be read in pages.
    pub(super) fn paged(self) -> Self {
        let limit = json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX });
        let page = "At most those of so many VIPs, by name; `next` says where the rest begins.";
        let after = "Only those of VIPs behind this name: the `next` of the page before.";
        self.list().query("limit", limit, page).query("after", text(), after)
    }

    /// A parameter of the query that may be left out.
    pub(super) fn query(mut self, name: &str, schema: Value, description: &str) -> Self {
        let parameter =
            json!({ "name": name, "in": "query", "schema": schema, "description": description });
        self.add(parameter);
        self
    }

    /// What it takes.
    pub(super) fn takes<T: ToSchema>(self, required: bool) -> Self {
        let mut this = self.takes_json(reference::<T>(), required);
        this.keep::<T>();
        this
    }

    /// What it takes, where that is narrower than a type.
    pub(super) fn takes_json(mut self, schema: Value, required: bool) -> Self {
        let content = json!({ "application/json": { "schema": schema } });
        self.value["requestBody"] = json!({ "required": required, "content": content });
        self
    }

    /// It changes something: it may be a dry run, and may be for one state only.
    pub(super) fn changes(self) -> Self {
        let mut this = self.query(
            "dry_run",
            json!({ "type": "string", "enum": ["0", "1", "false", "true"] }),
            "`1`: say what would be, and change nothing.",
        );
        let if_match = json!({
            "name": "If-Match", "in": "header", "schema": { "type": "string", "pattern": "^(\\*|\"[0-9a-f-]+\")$" },
            "description": "Only if it has this entity tag; 412 otherwise.",
        });
        this.add(if_match);
        this.refuses(412, "It has another tag by now: `ETag` has which.")
    }

    /// It goes into the history, and its reason is in the query.
    pub(super) fn reasoned(self) -> Self {
        let schema = json!({ "type": "string", "maxLength": REASON_MAX });
        self.query("reason", schema, "Why, for the history.")
    }

    /// A refusal that callers should be ready for, of what is right in itself.
    pub(super) fn refuses(mut self, status: u16, description: &str) -> Self {
        let content = json!({ PROBLEM_TYPE: { "schema": reference::<Problem>() } });
        self.value["responses"][status.to_string()] =
            json!({ "description": description, "content": content });
        self
    }

    /// A parameter as OpenAPI has it.
    pub(super) fn parameter(mut self, parameter: Value) -> Self {
        self.add(parameter);
        self
    }

    fn add(&mut self, parameter: Value) {
        if let Some(parameters) = self.value["parameters"].as_array_mut() {
            parameters.push(parameter);
        }
    }

    fn keep<T: ToSchema>(&mut self) {
        let mut nested = Vec::new();
        T::schemas(&mut nested);
        let own = (T::name().into_owned(), T::schema());
        for (name, schema) in nested.into_iter().chain([own]) {
            self.schemas.push((name, serde_json::to_value(schema).unwrap_or_default()));
        }
    }
}

/// An integer of the query that counts something.
pub(super) fn count() -> Value {
    json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX })
}

/// Any text.
pub(super) fn text() -> Value {
    json!({ "type": "string" })
}

fn reference<T: ToSchema>() -> Value {
    json!({ "$ref": format!("#/components/schemas/{}", T::name()) })
}

fn described(name: &str) -> &'static str {
    match name {
        "vip" => "Its name, or one of its addresses.",
        "node" => "Its name.",
        "service" => {
            "As in `web:443/tcp`, with what has a meaning in a URL as %XX, or what is left of it where that is enough."
        }
        "backend" => "Its name.",
        "address" => "As in `10.0.0.150`.",
        _ => "Its name.",
    }
}

fn example() -> Value {
    let problem = Problem {
        fix: Some("run on lb3: buoy move web --to lb2".into()),
        ..Problem::new(409, "not_owner", "lb1 does not own web", "lb3 does")
    };
    serde_json::to_value(problem).unwrap_or_default()
}

/// All that can be asked.
pub(super) fn operations() -> Vec<Operation> {
    let mut all = vec![
        Operation::new("get", "/healthz", "healthz", "Whether the agent answers.")
            .answers_with("text/plain", text()),
        Operation::new(
            "get",
            "/metrics",
            "metrics",
            "What monitoring reads, in Prometheus' text format.",
        )
        .answers_with("text/plain", text()),
        Operation::new("get", "/v1/openapi.json", "openapi", "This description.")
            .answers_with("application/json", json!({ "type": "object" })),
    ];
    all.extend(lists::operations());
    all.extend(support::operations());
    all.extend(config::operations());
    all.extend(orders::operations());
    all.extend(services::operations());
    all.extend(path::operations());
    all.extend(pools::operations());
    all.extend(vrrp::operations());
    all.extend(matrix::operations());
    all.extend(drills::operations());
    all.extend(super::operations());
    all
}

/// The whole description.
fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    let mut schemas: Map<String, Value> = Map::new();
    let mut problem = Operation::new("get", "", "", "");
    problem.keep::<Problem>();
    for operation in operations().into_iter().chain([problem]) {
        schemas.extend(operation.schemas);
        if operation.path.is_empty() {
            continue;
        }
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = operation.value;
    }
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Buoy",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The agent of one node: what it knows of the cluster, and what operators order. \
                            GET never changes anything. Readers do without fields that they miss and ignore \
                            those that they do not know.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "The agent's UNIX socket /run/buoy/api.sock, or where `[api]` listens." }],
        "security": [{}, { "token": [] }, { "certificate": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "Over TCP: what `buoy token new` printed." },
                "certificate": { "type": "mutualTLS", "description": "Over TCP: a certificate of `client_ca` with the URI buoy:ROLE/NAME." },
            },
        },
    })
}

pub(super) async fn openapi() -> Json<Value> {
    Json(document())
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex::Regex;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    /// Every route of this folder's files, with its method, as the source has it.
    fn routes() -> BTreeSet<(String, String)> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server");
        let mut files: Vec<_> = fs::read_dir(&here).unwrap().map(|e| e.unwrap().path()).collect();
        files.push(here.with_extension("rs"));
        let route = Regex::new(r#"\.route\(\s*"([^"]+)""#).unwrap();
        let method = Regex::new(r"\b(get|post|put|patch|delete)\(").unwrap();
        let mut all = BTreeSet::new();
        for file in files.into_iter().filter(|f| f.extension().is_some_and(|e| e == "rs")) {
            let source = fs::read_to_string(&file).unwrap();
            let source = source.split("#[cfg(test)]").next().unwrap();
            let starts: Vec<_> = route.captures_iter(source).collect();
            for (n, found) in starts.iter().enumerate() {
                let from = found.get(0).unwrap().end();
                let to =
                    starts.get(n + 1).map_or(source.len(), |next| next.get(0).unwrap().start());
                let rest = &source[from..to];
                // To the end of the chain that this route stands in.
                let end =
                    [".merge(", ".fallback(", "\n}"].iter().filter_map(|e| rest.find(e)).min();
                for m in method.captures_iter(&rest[..end.unwrap_or(rest.len())]) {
                    all.insert((m[1].to_owned(), found[1].to_owned()));
                }
            }
        }
        all
    }

    /// Whether a described path is one of a route: a parameter of the route may be a word.
    fn is_of(described: &str, route: &str) -> bool {
        let (a, b): (Vec<_>, Vec<_>) = (described.split('/').collect(), route.split('/').collect());
        a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a == b || b.starts_with('{'))
    }

    #[test]
    fn every_route_is_described_and_every_description_has_its_route() {
        let routes = routes();
        assert!(routes.contains(&("patch".into(), "/v1/nodes/{node}".into())), "{routes:?}");
        let described: Vec<_> = operations().iter().map(|o| (o.method, o.path)).collect();
        // The page is for browsers.
        let is_api =
            |path: &str| path.starts_with("/v1/") || path.ends_with('z') || path == "/metrics";
        let missing: Vec<_> = routes
            .iter()
            .filter(|(_, path)| is_api(path))
            .filter(|(m, r)| !described.iter().any(|(dm, dp)| dm == m && is_of(dp, r)))
            .collect();
        assert!(
            missing.is_empty(),
            "not in /v1/openapi.json: {missing:?}\nwrite `Operation::new(..)` for it into `operations()` beside its \
             `routes()`, derive `utoipa::ToSchema` for its types, and call the file's `operations()` in {}",
            file!()
        );
        let stray: Vec<_> = described
            .iter()
            .filter(|(dm, dp)| !routes.iter().any(|(m, r)| dm == m && is_of(dp, r)))
            .collect();
        assert!(
            stray.is_empty(),
            "described in {}, but there is no such route: {stray:?}",
            file!()
        );
        let once: BTreeSet<_> = described.iter().collect();
        assert_eq!(once.len(), described.len(), "an operation is described twice");
    }

    /// Lists that are no state of this node, which could change: who asks again gets another answer.
    const QUESTIONS: [&str; 7] = [
        // Of who asks.
        "/v1/me",
        // Asked of all nodes, at most once a second.
        "/v1/matrix",
        "/v1/matrix/{node}",
        // Where a packet would go, and why: followed by what they are about.
        "/v1/path",
        "/v1/vips/{vip}/why",
        // Counters, read from the kernel for each question.
        "/v1/services/{service}/flows",
        "/v1/services/{service}/backends/{backend}/flows",
    ];

    #[test]
    fn every_list_can_be_waited_for_and_followed() {
        let document = document();
        let mut lists = 0;
        for operation in operations().iter().filter(|operation| operation.method == "get") {
            let (path, answer) = (operation.path, &operation.value["responses"]["200"]["content"]);
            let schema = answer["application/json"]["schema"]["$ref"].as_str();
            let name = schema.and_then(|schema| schema.rsplit('/').next()).unwrap_or_default();
            let keys = document["components"]["schemas"][name]["properties"].as_object();
            let is_list = |key: &Value| key["type"] == "array";
            if !keys.is_some_and(|keys| keys.values().any(is_list)) || QUESTIONS.contains(&path) {
                continue;
            }
            lists += 1;
            let parameters = operation.value["parameters"].as_array().unwrap();
            let has = |name: &str| parameters.iter().any(|parameter| parameter["name"] == name);
            assert!(has("wait") && has("since"), "{path} cannot be waited for: `.list()`");
            assert!(answer[STREAM_TYPE].is_object(), "{path} cannot be followed");
        }
        assert!(15 < lists, "{lists}");
    }

    /// They answer what would be, and change nothing.
    const REHEARSALS: [&str; 2] = ["/v1/config/diff", "/v1/config/validate"];

    #[test]
    fn every_write_can_be_a_dry_run_and_for_one_state_only() {
        let (mut writes, mut lacking) = (0, Vec::new());
        for operation in operations() {
            let (method, path) = (operation.method, operation.path);
            if method == "get" || REHEARSALS.contains(&path) {
                continue;
            }
            writes += 1;
            let parameters = operation.value["parameters"].as_array();
            let has = |name| parameters.into_iter().flatten().any(|p| p["name"] == name);
            if !(has("dry_run") && has("If-Match")) {
                lacking.push((method, path));
            }
        }
        assert!(lacking.is_empty(), "`.changes()`: {lacking:?}");
        assert!(25 < writes, "{writes}");
    }

    #[test]
    fn every_reference_leads_to_a_schema_and_every_operation_has_a_name_of_its_own() {
        let document = document();
        let text = document.to_string();
        let names = document["components"]["schemas"].as_object().unwrap();
        let references = Regex::new(r##""#/components/schemas/([^"]+)""##).unwrap();
        for found in references.captures_iter(&text) {
            assert!(names.contains_key(&found[1]), "there is no schema {}", &found[1]);
        }
        for schema in ["ClusterStatus", "VipView", "DrainRequest", "Problem", "ConfigProblem"] {
            assert!(names.contains_key(schema), "{schema}");
        }
        let ids: Vec<_> = operations().iter().map(|o| o.value["operationId"].to_string()).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
        for operation in operations() {
            let answers = &operation.value["responses"]["200"]["content"];
            assert!(answers.is_object(), "{} {} answers nothing", operation.method, operation.path);
        }
    }
}
