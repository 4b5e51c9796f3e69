//! Proves who we are: the key file of the inventory, or the ssh-agent and the usual key files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::client::{AuthResult, Handle, Handler};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, load_secret_key};

use crate::cluster::Login;

/// Key files that are tried when the inventory names none.
const USUAL_KEYS: &[&str] = &[".ssh/id_ed25519", ".ssh/id_ecdsa", ".ssh/id_rsa"];

/// Logs in; on refusal tells what was tried.
pub(super) async fn log_in<H>(handle: &mut Handle<H>, login: &Login) -> Result<(), String>
where
    H: Handler<Error = super::SshError> + 'static,
{
    let hash = handle.best_supported_rsa_hash().await.map_err(|error| error.to_string())?.flatten();
    let mut tried = Vec::new();
    if let Some(path) = &login.key {
        if try_file(handle, login, path, hash).await? {
            return Ok(());
        }
        tried.push(path.display().to_string());
    } else {
        if try_agent(handle, login, hash, &mut tried).await {
            return Ok(());
        }
        let home = std::env::var_os("HOME").map(PathBuf::from);
        for path in USUAL_KEYS.iter().filter_map(|key| home.as_ref().map(|home| home.join(key))) {
            if !path.exists() {
                continue;
            }
            match try_file(handle, login, &path, hash).await {
                Ok(true) => return Ok(()),
                Ok(false) => tried.push(path.display().to_string()),
                Err(why) => tried.push(why),
            }
        }
    }
    Err(if tried.is_empty() {
        "there is no key to try: no ssh-agent and no key file".to_owned()
    } else {
        format!("the host refused every key ({})", tried.join(", "))
    })
}

async fn try_file<H>(handle: &mut Handle<H>, login: &Login, path: &Path, hash: Option<HashAlg>) -> Result<bool, String>
where
    H: Handler<Error = super::SshError> + 'static,
{
    let key = load_secret_key(path, None).map_err(|error| match error {
        russh::keys::Error::KeyIsEncrypted => format!(
            "the key {} has a passphrase: add it to the ssh-agent (ssh-add {0}) and leave `key` out",
            path.display()
        ),
        other => format!("cannot use the key {}: {other}", path.display()),
    })?;
    handle
        .authenticate_publickey(&login.user, PrivateKeyWithHashAlg::new(Arc::new(key), hash))
        .await
        .map(|result| result.success())
        .map_err(|error| error.to_string())
}

async fn try_agent<H>(handle: &mut Handle<H>, login: &Login, hash: Option<HashAlg>, tried: &mut Vec<String>) -> bool
where
    H: Handler<Error = super::SshError> + 'static,
{
    let Ok(mut agent) = AgentClient::connect_env().await else {
        return false;
    };
    let Ok(identities) = agent.request_identities().await else {
        return false;
    };
    for identity in identities {
        let AgentIdentity::PublicKey { key, comment } = identity else {
            continue;
        };
        let hash = if key.algorithm().is_rsa() { hash } else { None };
        let result = handle.authenticate_publickey_with(&login.user, key, hash, &mut agent).await;
        if matches!(result, Ok(AuthResult::Success)) {
            return true;
        }
        tried.push(format!("ssh-agent: {comment}"));
    }
    false
}
