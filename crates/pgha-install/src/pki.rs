//! The cluster's own certificate authority and one certificate per host, kept beside the inventory.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};

use crate::cluster::{Cluster, Host};
use crate::secrets::write_private;

/// Certificates of the hosts, and the authority that signed them.
#[derive(Clone)]
pub struct Pki {
    directory: PathBuf,
    ca: Pair,
    hosts: BTreeMap<String, Pair>,
    incomplete_on_disk: bool,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pki({})", self.directory.display())
    }
}

/// Certificates that cannot be made, read or kept.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("the certificates in {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cryptography failed; most likely a file there is not what it was.
    #[error("the certificates in {}: {source}; restore the directory from a copy", path.display())]
    Crypto {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: rcgen::Error,
    },
}

impl Pki {
    /// Reads the directory beside `inventory` and makes what it lacks. Nothing is written before [`Pki::save`].
    pub fn load(inventory: &Path, cluster: &Cluster) -> Result<Self, PkiError> {
        let directory = inventory.with_extension("pki");
        let crypto = |source| PkiError::Crypto { path: directory.clone(), source };
        let mut incomplete_on_disk = false;
        let ca = if let Some(pair) = Pair::read(&directory, "ca")? {
            pair
        } else {
            incomplete_on_disk = true;
            authority(cluster.name.as_str()).map_err(crypto)?
        };
        let issuer = KeyPair::from_pem(&ca.key)
            .and_then(|key| Issuer::from_ca_cert_pem(&ca.certificate, key))
            .map_err(crypto)?;
        let mut hosts = BTreeMap::new();
        for host in &cluster.hosts {
            let name = host.name.to_string();
            let kept = Pair::read(&directory, &name)?.filter(|pair| pair.certificate.starts_with(&label(host)));
            let pair = if let Some(pair) = kept {
                pair
            } else {
                incomplete_on_disk = true;
                certify(host, &issuer).map_err(crypto)?
            };
            hosts.insert(name, pair);
        }
        Ok(Self { directory, ca, hosts, incomplete_on_disk })
    }

    /// Writes what the directory lacks.
    pub fn save(&self) -> Result<(), PkiError> {
        use std::os::unix::fs::DirBuilderExt as _;

        if !self.incomplete_on_disk {
            return Ok(());
        }
        let io = |source| PkiError::Io { path: self.directory.clone(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(io)?;
        let authority = std::iter::once(("ca", &self.ca));
        for (name, pair) in authority.chain(self.hosts.iter().map(|(name, pair)| (name.as_str(), pair))) {
            write_private(&self.directory.join(format!("{name}.key")), pair.key.as_bytes()).map_err(io)?;
            write_private(&self.directory.join(format!("{name}.crt")), pair.certificate.as_bytes()).map_err(io)?;
        }
        Ok(())
    }

    /// The authority's certificate.
    pub fn authority(&self) -> &str {
        &self.ca.certificate
    }

    /// Certificate and key of a host of the inventory.
    pub fn of(&self, host: &str) -> Option<&Pair> {
        self.hosts.get(host)
    }
}

impl Pair {
    fn read(directory: &Path, name: &str) -> Result<Option<Self>, PkiError> {
        let read = |end: &str| {
            let path = directory.join(format!("{name}.{end}"));
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(PkiError::Io { path, source }),
            }
        };
        Ok(read("crt")?.zip(read("key")?).map(|(certificate, key)| Self { certificate, key }))
    }
}

/// First line of a host's certificate: whom it was made for. PEM readers pass over it.
fn label(host: &Host) -> String {
    format!("# {} {} {}\n", host.name, host.address, host.cluster_address)
}

fn authority(cluster: &str) -> Result<Pair, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, format!("pgha {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2050, 1, 1));
    Ok(Pair { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

fn certify(host: &Host, issuer: &Issuer<'_, KeyPair>) -> Result<Pair, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut names = vec![host.name.to_string(), host.address.clone(), host.cluster_address.clone()];
    names.sort();
    names.dedup();
    let mut params = CertificateParams::new(names.clone())?;
    // pgBackRest compares the address that it connects to with DNS names only, even where it is a number.
    for name in names.into_iter().filter(|name| name.parse::<IpAddr>().is_ok()) {
        params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
    }
    params.distinguished_name.push(DnType::CommonName, host.name.to_string());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2050, 1, 1));
    Ok(Pair { certificate: label(host) + &params.signed_by(&key, issuer)?.pem(), key: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory;

    fn cluster(address: &str) -> Cluster {
        let text = format!(
            "hosts = [{{ name = \"a\", address = \"{address}\", roles = [\"postgres\", \"zookeeper\", \"archive\"] }}]"
        );
        inventory::parse("t", &text).unwrap()
    }

    #[test]
    fn certificates_are_made_once_and_again_for_a_new_address() {
        let directory = tempfile::tempdir().unwrap();
        let inventory = directory.path().join("lab.toml");
        let first = Pki::load(&inventory, &cluster("10.0.0.1")).unwrap();
        first.save().unwrap();
        let second = Pki::load(&inventory, &cluster("10.0.0.1")).unwrap();
        assert!(!second.incomplete_on_disk);
        assert_eq!(first.of("a").unwrap().certificate, second.of("a").unwrap().certificate);
        let third = Pki::load(&inventory, &cluster("10.0.0.2")).unwrap();
        assert_eq!(first.authority(), third.authority());
        assert_ne!(first.of("a").unwrap().certificate, third.of("a").unwrap().certificate);
    }
}
