//! A connection to one host and the commands that run over it, always as root.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, Handle};
use russh::keys::{HashAlg, PublicKey, PublicKeyOrCertificate};

use russh::{ChannelMsg, Disconnect, Preferred};
use tokio::time::{Instant, timeout};

use super::auth;
use super::known_hosts::{self, KnownHosts, Verdict};
use crate::cluster::Host;

/// How long a host may take to answer and to log us in.
const CONNECT: Duration = Duration::from_secs(15);
/// How much a command may print before the rest is thrown away.
const OUTPUT_LIMIT: usize = 16 * 1024 * 1024;

/// Lines of a failed command's output that are shown.
const LAST_WORDS: usize = 12;

/// Which host keys are good.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The file that recorded keys come from and accepted ones go to.
    pub file: PathBuf,
    /// Whether a key that the file does not know is accepted and recorded.
    pub accept_unknown: bool,
}

/// Why a host cannot be reached, or a command on it has no result.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// The file of known keys cannot be used.
    #[error("cannot use the file of known host keys {}: {source}", path.display())]
    KnownHosts {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No TCP connection.
    #[error("no connection to {address} port {port}: {why}")]
    Unreachable {
        /// Address of the host.
        address: String,
        /// SSH port.
        port: u16,
        /// Why.
        why: String,
    },
    /// The host's key is not recorded.
    #[error(
        "the host key of {address} is unknown: {algorithm} {fingerprint}; compare it with what `ssh-keygen -lf \
         /etc/ssh/ssh_host_{kind}_key.pub` prints on the host itself, then run again with --accept-host-key, which \
         records it in {}", file.display(), kind = key_kind(algorithm)
    )]
    UnknownKey {
        /// Address of the host.
        address: String,
        /// Kind of key.
        algorithm: String,
        /// Fingerprint of the key shown.
        fingerprint: String,
        /// The file of known keys.
        file: PathBuf,
    },
    /// The host shows another key than the recorded one.
    #[error(
        "the host key of {address} has changed: it now shows {fingerprint}, but {}:{line} records another key; somebody \
         may be in between, or the host was installed anew; if you are sure, remove that line and run again with \
         --accept-host-key", file.display()
    )]
    ChangedKey {
        /// Address of the host.
        address: String,
        /// Fingerprint of the key shown.
        fingerprint: String,
        /// The file of known keys.
        file: PathBuf,
        /// Line of the recorded key.
        line: usize,
    },
    /// The host shows a revoked key.
    #[error("the host key of {address} is revoked ({}:{line})", file.display())]
    RevokedKey {
        /// Address of the host.
        address: String,
        /// The file of known keys.
        file: PathBuf,
        /// Line of the mark.
        line: usize,
    },
    /// The host shows a certificate.
    #[error("{address} shows a host certificate; only plain host keys are supported")]
    Certificate {
        /// Address of the host.
        address: String,
    },
    /// The host does not let us in.
    #[error("{user}@{address}: login failed: {why}")]
    Login {
        /// Login name.
        user: String,
        /// Address of the host.
        address: String,
        /// What was tried.
        why: String,
    },
    /// Root is out of reach.
    #[error("user {user} may not run commands as root: {why}")]
    NoSudo {
        /// Login name.
        user: String,
        /// What sudo said.
        why: String,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The command showed no sign of life.
    #[error("no answer for {} s", .0.as_secs())]
    Silent(Duration),
}

impl From<russh::Error> for SshError {
    fn from(error: russh::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl SshError {
    /// What the user may do about it, where the message does not say it already.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } => {
                Some("is the host up, is sshd running on that port, and does no firewall stand in between?")
            }
            Self::Login { .. } => Some(
                "set ssh.user and ssh.key in the inventory to an account whose authorized_keys holds the matching public key",
            ),
            Self::NoSudo { .. } => Some(
                "give the account passwordless sudo (a file in /etc/sudoers.d with `USER ALL=(ALL) NOPASSWD: ALL`) or log in as root",
            ),
            Self::Broken(_) | Self::Silent(_) => Some("run the same command again: finished steps are not repeated"),
            _ => None,
        }
    }
}

/// What a command left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit status; 255 when a signal ended it.
    pub status: u32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Whether the exit status is 0.
    pub fn ok(&self) -> bool {
        self.status == 0
    }

    /// The words of a failed command that matter: its first error, and its last words.
    pub fn complaint(&self) -> String {
        let words = [self.stderr.trim(), self.stdout.trim()]
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or("it said nothing");
        let lines: Vec<&str> = words.lines().collect();
        let tail = lines.len().saturating_sub(LAST_WORDS);
        let first_error = lines[..tail].iter().find(|line| line.to_ascii_lowercase().contains("error"));
        first_error.into_iter().chain(&lines[tail..]).copied().collect::<Vec<_>>().join("\n")
    }
}

/// A connection to one host.
pub struct Session {
    handle: Handle<Keys>,
    user: String,
    sudo: bool,
}

/// A command that runs until this is dropped.
pub struct Held {
    _channel: russh::Channel<client::Msg>,
}

/// Checks the host's key.
struct Keys {
    trust: Trust,
    known: KnownHosts,
    address: String,
    name: String,
    port: u16,
}

impl Keys {
    fn check(&self, key: &PublicKey) -> Result<(), SshError> {
        let (address, file) = (self.address.clone(), self.trust.file.clone());
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        match self.known.judge(&[&self.address, &self.name], self.port, key) {
            Verdict::Known => Ok(()),
            Verdict::Changed { line } => Err(SshError::ChangedKey { address, fingerprint, file, line }),
            Verdict::Revoked { line } => Err(SshError::RevokedKey { address, file, line }),
            Verdict::Unknown if self.trust.accept_unknown => known_hosts::record(&file, &address, self.port, key)
                .map_err(|source| SshError::KnownHosts { path: file, source }),
            Verdict::Unknown => {
                Err(SshError::UnknownKey { address, algorithm: key.algorithm().to_string(), fingerprint, file })
            }
        }
    }
}

impl client::Handler for Keys {
    type Error = SshError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, SshError> {
        match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.check(key).map(|()| true),
            PublicKeyOrCertificate::Certificate(_) => Err(SshError::Certificate { address: self.address.clone() }),
        }
    }
}

impl Session {
    /// Connects to a host and logs in.
    pub async fn connect(host: &Host, trust: &Trust) -> Result<Self, SshError> {
        let (address, port) = (host.address.clone(), host.ssh.port);
        let unreachable = |why: String| SshError::Unreachable { address: address.clone(), port, why };
        let known = KnownHosts::load(&trust.file)
            .map_err(|source| SshError::KnownHosts { path: trust.file.clone(), source })?;
        let name = host.name.to_string();
        let mut preferred = Preferred::default();
        let recorded = known.algorithms(&[&address, &name], port);
        let (first, rest): (Vec<_>, Vec<_>) = preferred.key.iter().cloned().partition(|algorithm| {
            recorded.iter().any(|own| own == algorithm || (own.clone().is_rsa() && algorithm.clone().is_rsa()))
        });
        preferred.key = first.into_iter().chain(rest).collect::<Vec<_>>().into();
        let config = client::Config {
            preferred,
            nodelay: true,
            keepalive_interval: Some(Duration::from_secs(15)),
            keepalive_max: 3,
            ..client::Config::default()
        };
        let keys = Keys { trust: trust.clone(), known, address: address.clone(), name, port };
        let stream = timeout(CONNECT, tokio::net::TcpStream::connect((address.as_str(), port)))
            .await
            .map_err(|_elapsed| unreachable(format!("no answer within {} s", CONNECT.as_secs())))?
            .map_err(|error| unreachable(error.to_string()))?;
        let silent = |_elapsed| unreachable(format!("it does not speak SSH within {} s", CONNECT.as_secs()));
        let mut handle =
            timeout(CONNECT, client::connect_stream(Arc::new(config), stream, keys)).await.map_err(silent)??;
        timeout(CONNECT, auth::log_in(&mut handle, &host.ssh))
            .await
            .map_err(silent)?
            .map_err(|why| SshError::Login { user: host.ssh.user.clone(), address: address.clone(), why })?;
        Ok(Self { handle, user: host.ssh.user.clone(), sudo: host.ssh.sudo })
    }

    /// Runs a shell script as root. Nothing secret may be in `script`: `input` is where it goes.
    ///
    /// Gives up when the command neither takes input nor prints anything for as long as `patience`.
    pub async fn run(&self, script: &str, input: &[u8], patience: Duration) -> Result<Output, SshError> {
        let channel = self.handle.channel_open_session().await?;
        channel.exec(true, self.as_root(script)).await?;
        let (mut answers, requests) = channel.split();
        let send = async {
            // A command that ends without reading its input closes the channel under us: its exit status tells more.
            let _closed_early = requests.data(input).await;
            let _closed_early = requests.eof().await;
        };
        let receive = async {
            let (mut status, mut stdout, mut stderr) = (None, Vec::new(), Vec::new());
            let keep = |buffer: &mut Vec<u8>, data: &[u8]| {
                let room = OUTPUT_LIMIT.saturating_sub(buffer.len());
                buffer.extend_from_slice(&data[..data.len().min(room)]);
            };
            // Exit status, end of file and close come in an order of the server's choosing: read to the end.
            loop {
                let message = timeout(patience, answers.wait()).await.map_err(|_elapsed| SshError::Silent(patience))?;
                match message {
                    None => break,
                    Some(ChannelMsg::Data { data }) => keep(&mut stdout, &data),
                    Some(ChannelMsg::ExtendedData { data, .. }) => keep(&mut stderr, &data),
                    Some(ChannelMsg::ExitStatus { exit_status }) => status = Some(exit_status),
                    Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                        stderr.extend_from_slice(format!("ended by signal {signal_name:?}").as_bytes());
                        status = Some(255);
                    }
                    Some(_) => {}
                }
            }
            Ok::<_, SshError>((status, stdout, stderr))
        };
        let ((), received) = tokio::join!(send, receive);
        let (status, stdout, stderr) = received?;
        let output = Output {
            status: status.ok_or_else(|| SshError::Broken("the command ended without an exit status".to_owned()))?,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        };
        self.refused(&output)?;
        Ok(output)
    }

    /// Runs a shell script as root that prints one line and then waits for its standard input to end.
    ///
    /// It ends with [`Held`], or with the connection, however that comes about. `Err` in the result holds what a
    /// script said that ended by itself.
    pub async fn hold(&self, script: &str, patience: Duration) -> Result<Result<Held, Output>, SshError> {
        let mut channel = self.handle.channel_open_session().await?;
        channel.exec(true, self.as_root(script)).await?;
        let (mut status, mut stdout, mut stderr) = (255, Vec::new(), Vec::new());
        let deadline = Instant::now() + patience;
        loop {
            let message = tokio::time::timeout_at(deadline, channel.wait())
                .await
                .map_err(|_elapsed| SshError::Silent(patience))?;
            match message {
                Some(ChannelMsg::Data { data }) => {
                    stdout.extend_from_slice(&data);
                    if stdout.starts_with(b"held\n") {
                        return Ok(Ok(Held { _channel: channel }));
                    }
                }
                Some(ChannelMsg::ExtendedData { data, .. }) => stderr.extend_from_slice(&data),
                Some(ChannelMsg::ExitStatus { exit_status }) => status = exit_status,
                Some(_) => {}
                None => break,
            }
        }
        let output = Output {
            status,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        };
        self.refused(&output)?;
        Ok(Err(output))
    }

    /// Says good-bye.
    pub async fn close(&self) {
        // The work is done; a host that is gone by now changes nothing.
        let _gone = self.handle.disconnect(Disconnect::ByApplication, "", "en").await;
    }

    fn as_root(&self, script: &str) -> String {
        let sudo = if self.sudo { "sudo -n -- " } else { "" };
        format!("{sudo}/bin/sh -c {}", quote(script))
    }

    /// Tells a refusal by sudo from a failure of the command itself.
    fn refused(&self, output: &Output) -> Result<(), SshError> {
        let first = output.stderr.lines().find(|line| !line.trim().is_empty()).unwrap_or("");
        let by_sudo = self.sudo
            && !output.ok()
            && (first.starts_with("sudo:")
                || first.contains("sudo: command not found")
                || first.contains("is not in the sudoers"));
        if by_sudo { Err(SshError::NoSudo { user: self.user.clone(), why: first.trim().to_owned() }) } else { Ok(()) }
    }
}

/// The part of a key file's name that tells its kind.
fn key_kind(algorithm: &str) -> &'static str {
    match algorithm {
        "ssh-ed25519" => "ed25519",
        name if name.starts_with("ecdsa") => "ecdsa",
        _ => "rsa",
    }
}

/// One word of a shell command.
pub fn quote(text: &str) -> String {
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-' | b'=' | b':' | b'@' | b',')
    };
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_begins_with_the_first_error() {
        let noise = "x\n".repeat(30);
        let output =
            Output { status: 1, stdout: "unused".to_owned(), stderr: format!("a\nError: the cause\n{noise}the end\n") };
        let said = output.complaint();
        assert!(said.starts_with("Error: the cause\nx\n") && said.ends_with("the end"), "{said}");
        assert_eq!(said.lines().count(), LAST_WORDS + 1);
    }

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quote("/etc/pgha/agent.toml"), "/etc/pgha/agent.toml");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("a b'c\n$x"), "'a b'\\''c\n$x'");
    }
}
