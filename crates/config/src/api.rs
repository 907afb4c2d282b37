//! Reads `[api]`: where the API is served over TCP, and who may ask there.
//!
//! Whoever may order can move every VIP, so nobody is let in unasked, and nothing goes over a wire in the clear:
//! what would be open by a slip of the pen is an error here. Absent on purpose: the cluster's digest, since
//! each host has its own address and its own users.

use crate::files::{error_words, read_pem_certificate, read_pem_key, resolve};
use crate::keys::{api as key, api_tls, top};
use crate::report::{At, Problems, Span, shown};
use crate::tree::Section;
use crate::{Code, ReadFile, value};
use core::fmt;
use core::net::SocketAddr;
use sha2::{Digest as _, Sha256};

/// Users that a file of tokens may have.
const TOKENS_MAX: usize = 256;
/// What a token begins with, so that scanners of secrets know one.
const TOKEN_PREFIX: &str = "buoy_";
/// Bytes of a token.
pub const TOKEN_LEN: usize = 32;

/// What somebody may do; each may do all that those before it may.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// Ask.
    Read,
    /// Order: move, hold, drain.
    Operate,
    /// Change the configuration.
    Admin,
}

impl Role {
    /// All of them, least first.
    pub const ALL: [Self; 3] = [Self::Read, Self::Operate, Self::Admin];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }

    /// The role of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == text)
    }
}

/// The API over TCP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Api {
    /// Where.
    pub listen: SocketAddr,
    /// With which certificate; `None`: only this host can reach it.
    pub tls: Option<Tls>,
    /// Who may ask with which token.
    pub tokens: Vec<Token>,
}

/// The files of a server of TLS, read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tls {
    /// Its certificate, with those between it and its authority.
    pub cert: Pem,
    /// The key of it.
    pub key: Pem,
    /// Who vouches for clients; `None`: nobody, they have tokens.
    pub client_ca: Option<Pem>,
}

/// The content of a PEM file, which no log prints.
#[derive(Clone, Eq, PartialEq)]
pub struct Pem(pub Vec<u8>);

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of PEM", self.0.len())
    }
}

/// One user of the API. The token itself is nowhere but with him.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Token {
    /// Who he is, for the records.
    pub name: String,
    /// What he may do.
    pub role: Role,
    /// SHA-256 of his token.
    pub hash: [u8; 32],
}

impl Token {
    /// Of this text, as it comes in a request.
    pub fn hash(text: &str) -> [u8; 32] {
        Sha256::digest(text.as_bytes()).into()
    }

    /// A new one of these random bytes: its text, which nobody keeps, and the line that is kept.
    pub fn make(
        name: &str,
        role: Role,
        bytes: &[u8; TOKEN_LEN],
    ) -> Result<(String, String), String> {
        if let Some(fault) = value::name_fault(name) {
            return Err(format!("{name:?} cannot be a name: {fault}"));
        }
        let text = format!("{TOKEN_PREFIX}{}", hex(bytes));
        let line = format!("{name} {} {}", role.name(), hex(&Self::hash(&text)));
        Ok((text, line))
    }

    /// One line of a file of tokens; why it is none, in words.
    fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_ascii_whitespace();
        let (Some(name), Some(role), Some(hash), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err("a line is a name, a role and a hash".into());
        };
        if let Some(fault) = value::name_fault(name) {
            return Err(format!("\"{}\" cannot be a name: {fault}", shown(name)));
        }
        let role = Role::parse(role)
            .ok_or_else(|| format!("\"{}\" is no role: read, operate or admin", shown(role)))?;
        let hash = unhex(hash).ok_or("the hash is not 64 hexadecimal digits")?;
        Ok(Self { name: name.into(), role, hash })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// What the table says, before any file is read.
#[derive(Clone, Debug)]
pub(crate) struct Draft<'t> {
    listen: SocketAddr,
    tls: Option<DraftTls<'t>>,
    tokens: Option<At<&'t str>>,
}

#[derive(Clone, Debug)]
struct DraftTls<'t> {
    cert: At<&'t str>,
    key: At<&'t str>,
    client_ca: Option<At<&'t str>>,
}

pub(crate) fn read<'t>(top: &Section<'t>, problems: &mut Problems<'_>) -> Option<Draft<'t>> {
    let table = top.section(&top::API, &key::SCHEMA, problems)?;
    let tls = table.section(&key::TLS, &api_tls::SCHEMA, problems);
    let tokens = table.text(&key::TOKENS, problems).and_then(|text| tokens_path(&text, problems));
    let listen = read_listen(&table, tls.is_some(), problems);
    let names_client = tls.as_ref().is_some_and(|tls| tls.has(&api_tls::CLIENT_CA));
    if !names_client && !table.has(&key::TOKENS) && !table.has_unknown(&[&key::TOKENS]) {
        let message = "`[api]` lets everybody in: it has neither `tokens` nor `client_ca`";
        let reason = "whoever may order can move every VIP";
        let fix = "run `buoy token new NAME --role read`, put its line into a file, and write tokens = \"file:tokens\"";
        problems.add(Code::ApiForAnyone, table.span(), message, reason, fix);
    }
    let tls = match tls {
        Some(tls) => Some(read_tls(&tls, problems)?),
        None => None,
    };
    Some(Draft { listen: listen?, tls, tokens })
}

fn read_listen(
    table: &Section<'_>,
    has_tls: bool,
    problems: &mut Problems<'_>,
) -> Option<SocketAddr> {
    if !table.has(&key::LISTEN) {
        table.miss(&key::LISTEN, problems);
    }
    let at = table.text(&key::LISTEN, problems)?;
    let listen = match at.value.parse::<SocketAddr>() {
        Ok(listen) if listen.port() != 0 => listen,
        Ok(_) | Err(_) => {
            let message = format!("`listen`: \"{}\" is not an address and a port", shown(at.value));
            let fix = format!(
                "write an address of this host and a port, such as {}",
                key::LISTEN.example
            );
            problems.add(Code::BadApiAddress, &at.span, message, "clients have to know both", fix);
            return None;
        }
    };
    if !has_tls && !listen.ip().is_loopback() {
        let message = "the API would go over the network in the clear";
        let reason = "whoever reads a token on the way can move every VIP";
        let fix = format!(
            "add `{} = {}`, or listen on 127.0.0.1, for a proxy on this host",
            key::TLS.name,
            key::TLS.example
        );
        problems.add(Code::ApiInTheClear, &at.span, message, reason, fix);
        return None;
    }
    Some(listen)
}

fn read_tls<'t>(table: &Section<'t>, problems: &mut Problems<'_>) -> Option<DraftTls<'t>> {
    for needed in [&api_tls::CERT, &api_tls::KEY] {
        if !table.has(needed) {
            table.miss(needed, problems);
        }
    }
    let cert = table.text(&api_tls::CERT, problems);
    let key = table.text(&api_tls::KEY, problems);
    let client_ca = table.text(&api_tls::CLIENT_CA, problems);
    Some(DraftTls { cert: cert?, key: key?, client_ca })
}

fn tokens_path<'t>(text: &At<&'t str>, problems: &mut Problems<'_>) -> Option<At<&'t str>> {
    if let Some(path) = text.value.strip_prefix("file:").filter(|path| !path.is_empty()) {
        return Some(At::new(path, text.span.clone()));
    }
    problems.mask(&text.span);
    let message = "`tokens` names a file, it is not a token itself";
    let fix =
        "write tokens = \"file:tokens\", and the lines that `buoy token new` prints into that file";
    problems.add(Code::BadToken, &text.span, message, "a configuration is read by many", fix);
    None
}

/// The API with its files; every problem of every file is reported.
pub(crate) fn load(
    draft: &Draft<'_>,
    config: &str,
    files: &ReadFile<'_>,
    problems: &mut Problems<'_>,
) -> Option<Api> {
    let tls = match &draft.tls {
        Some(draft) => {
            let cert = read_certificate(&draft.cert, config, files, problems);
            let key = read_pem_key(
                &resolve(config, draft.key.value),
                (&draft.key.span, Code::BadApiFile),
                files,
                problems,
            );
            let ca = draft.client_ca.as_ref();
            let ca = ca.map(|ca| read_certificate(ca, config, files, problems));
            let client_ca = match ca {
                Some(ca) => Some(ca?),
                None => None,
            };
            Some(Tls { cert: cert?, key: Pem(key?), client_ca })
        }
        None => None,
    };
    let tokens = match &draft.tokens {
        Some(path) => read_tokens(&resolve(config, path.value), &path.span, files, problems)?,
        None => Vec::new(),
    };
    Some(Api { listen: draft.listen, tls, tokens })
}

fn read_certificate(
    path: &At<&str>,
    config: &str,
    files: &ReadFile<'_>,
    problems: &mut Problems<'_>,
) -> Option<Pem> {
    let full = resolve(config, path.value);
    read_pem_certificate(&full, (&path.span, Code::BadApiFile), files, problems).map(Pem)
}

fn read_tokens(
    path: &str,
    span: &Span,
    files: &ReadFile<'_>,
    problems: &mut Problems<'_>,
) -> Option<Vec<Token>> {
    let name = shown(path);
    let facts = match files(path) {
        Ok(facts) => facts,
        Err(error) => {
            let message = format!("cannot read the tokens in {name}");
            let fix = "make the file of lines that `buoy token new NAME --role read` prints";
            problems.add(Code::BadApiFile, span, message, error_words(&error), fix);
            return None;
        }
    };
    if facts.mode & 0o022 != 0 {
        let message = format!("others than its owner can change {name}");
        let reason = format!(
            "its mode is {:04o}; whoever adds a line may do everything",
            facts.mode & 0o7777
        );
        problems.add(Code::BadApiFile, span, message, reason, format!("run `chmod 600 {name}`"));
        return None;
    }
    let text = String::from_utf8_lossy(&facts.content);
    let (tokens, wrong) = parse_tokens(&text);
    for (line, why) in &wrong {
        let message = format!("{name}, line {line}: {why}");
        let fix = "write it as `buoy token new NAME --role ROLE` prints it: NAME ROLE SHA256";
        problems.add(Code::BadToken, span, message, "", fix);
    }
    wrong.is_empty().then_some(tokens)
}

/// The tokens of a file, and the lines that are none, with the reason.
fn parse_tokens(text: &str) -> (Vec<Token>, Vec<(usize, String)>) {
    let mut tokens: Vec<Token> = Vec::new();
    let mut wrong = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match Token::parse(line) {
            Ok(token) if tokens.iter().any(|t| t.name == token.name || t.hash == token.hash) => {
                wrong.push((n + 1, "this name or this hash was there before".to_owned()));
            }
            Ok(_) if tokens.len() == TOKENS_MAX => {
                wrong.push((n + 1, format!("there are more than {TOKENS_MAX}")));
                break;
            }
            Ok(token) => tokens.push(token),
            Err(why) => wrong.push((n + 1, why)),
        }
    }
    if tokens.is_empty() && wrong.is_empty() {
        wrong.push((1, "there is no token".to_owned()));
    }
    (tokens, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_and_its_line_read_again() {
        let (text, line) = Token::make("ann", Role::Operate, &[7; TOKEN_LEN]).unwrap();
        assert!(text.starts_with("buoy_0707") && text.len() == 5 + 64, "{text}");
        assert!(!line.contains(&text), "what is kept is no token");
        let token = Token::parse(&line).unwrap();
        assert_eq!((token.name.as_str(), token.role), ("ann", Role::Operate));
        assert_eq!(token.hash, Token::hash(&text));
        assert!(Token::make("an n", Role::Read, &[7; TOKEN_LEN]).is_err());
        assert!(Role::Read < Role::Operate && Role::Operate < Role::Admin);
        for wrong in ["ann", "ann read", "ann root 00", "ann read 00", &format!("{line} x") as &str]
        {
            assert!(Token::parse(wrong).is_err(), "{wrong}");
        }
    }
}
