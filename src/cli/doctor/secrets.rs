//! The files that hold secrets: whether they are there, what they hold, and who else could read or change them.

use super::{Finding, Verdict};
use crate::auth::read_secret;
use crate::config::{Config, Sources};
use crate::secret::SecretSource;
use crate::sidecar::{authority, tls_listeners};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A token that is shorter can be found by trying.
const SHORT_TOKEN: usize = 16;
/// The least that RFC 7518 (section 3.2) asks of a secret for HS256.
const SHORT_SECRET: usize = 32;

/// The sticky bit of a directory: only the owner of a file there replaces it.
const STICKY: u32 = 0o1000;

/// Looks at the files, at what is made of them, and at the configuration file if secrets stand in it.
pub(super) fn look(config: &Config, file: Option<&Path>) -> Vec<Finding> {
    let files = files(config);
    let mut found: Vec<Verdict> = files.iter().filter_map(|(key, path)| look_at(key, path)).collect();
    found.extend(file.and_then(configuration_file));
    let mut findings: Vec<Finding> =
        found.into_iter().map(|verdict| Finding { what: "secrets", verdict }).collect();
    if findings.is_empty() {
        let words = match files.len() {
            0 => "none are in files of their own".to_owned(),
            1 => "the file is there, and others cannot read it".to_owned(),
            many => format!("{many} files are there, and others can read none"),
        };
        findings.push(Finding::new("secrets", Ok(words)));
    }
    match tls_listeners(config) {
        Ok(listeners) if listeners.is_empty() => {}
        Ok(listeners) => {
            let words = format!("the certificates of {} fit their keys", listeners.join(", "));
            findings.push(Finding::new("TLS", Ok(words)));
        }
        Err(error) => findings.push(Finding::new("TLS", Err(error.to_string()))),
    }
    match authority(config) {
        Ok(None) => {}
        Ok(Some(_)) => findings.push(Finding::new("auth", Ok("the keys of tokens can be used".into()))),
        Err(error) => findings.push(Finding::new("auth", Err(error.to_string()))),
    }
    findings
}

/// The configured files that hold a secret, each with its key. That of encryption is not among them: it is told
/// about with what it encrypts.
fn files(config: &Config) -> Vec<(&'static str, &Path)> {
    let Config { app, client, admin, auth, bus, .. } = config;
    let paths = [
        ("app.token_file", Some(&app.token_file)),
        ("app.tls_key_file", Some(&app.tls_key_file)),
        ("client.tls_key_file", Some(&client.tls_key_file)),
        ("admin.token_file", Some(&admin.token_file)),
        ("admin.tls_key_file", Some(&admin.tls_key_file)),
        ("auth.secret_file", Some(&auth.secret_file)),
        ("bus.password_file", bus.password_file.as_ref()),
        ("bus.sentinel_password_file", bus.sentinel_password_file.as_ref()),
        ("bus.token_file", bus.token_file.as_ref()),
        ("bus.credentials_file", bus.credentials_file.as_ref()),
        ("bus.nkey_file", bus.nkey_file.as_ref()),
        ("bus.tls_key_file", bus.tls_key_file.as_ref()),
    ];
    let given = paths.into_iter().filter_map(|(key, path)| Some((key, path?.as_path())));
    given.filter(|(_, path)| !path.as_os_str().is_empty()).collect()
}

/// What is wrong with a file, the worst first.
fn look_at(key: &'static str, path: &Path) -> Option<Verdict> {
    let shown = path.display();
    let mode = match fs::metadata(path) {
        Err(error) => {
            return Some(Verdict::Bad(format!("{key}: {shown}: {error}; {}", remedy(error.kind()))));
        }
        Ok(found) if !found.is_file() => return Some(Verdict::Bad(format!("{key}: {shown} is no file"))),
        Ok(found) => found.mode(),
    };
    if mode & 0o002 != 0 {
        return Some(Verdict::Bad(format!(
            "{key}: every user of this host can write {shown} (mode {:03o}): chmod 600",
            mode & 0o777
        )));
    }
    if let Some(words) = replaceable(path) {
        return Some(Verdict::Bad(format!("{key}: {words}")));
    }
    if let Err(words) = holds_something(key, path) {
        return Some(Verdict::Bad(words));
    }
    if mode & 0o004 != 0 {
        return Some(Verdict::Doubtful(format!(
            "{key}: every user of this host can read {shown} (mode {:03o}): chmod 600, and make a new one if others \
             had access",
            mode & 0o777
        )));
    }
    weak(key, path).map(Verdict::Doubtful)
}

fn remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::PermissionDenied => "run this as the user that runs the node",
        _ => "write it, or name another file",
    }
}

/// Says so where anybody could put another file in the place of this one.
pub(super) fn replaceable(path: &Path) -> Option<String> {
    // A mounted secret is a link to where it really is.
    let real = path.canonicalize().ok()?;
    let directory = real.parent()?;
    let mode = fs::metadata(directory).ok()?.mode();
    (mode & 0o002 != 0 && mode & STICKY == 0).then(|| {
        format!(
            "{} is writable for everybody, who could put another file in the place of {}: chmod 755",
            directory.display(),
            path.display()
        )
    })
}

/// That a password or a token can be read. Keys in PEM are tried as a whole.
fn holds_something(key: &'static str, path: &Path) -> Result<(), String> {
    if key.ends_with("tls_key_file") || key == "auth.secret_file" {
        return Ok(());
    }
    SecretSource::File(path.to_owned()).read().map(drop).map_err(|error| format!("{key}: {error}"))
}

/// Says so where what we compare with is short enough to be found by trying.
fn weak(key: &'static str, path: &Path) -> Option<String> {
    let least = match key {
        "app.token_file" | "admin.token_file" => SHORT_TOKEN,
        "auth.secret_file" => SHORT_SECRET,
        _ => return None,
    };
    let secret = read_secret(key, path).ok()?;
    (secret.len() < least).then(|| {
        format!(
            "{key}: {} holds less than {least} bytes, which can be found by trying: write random ones, such as \
             `openssl rand -hex 32` prints",
            path.display()
        )
    })
}

/// Says so where the configuration file holds a secret and everybody can read it.
fn configuration_file(path: &Path) -> Option<Verdict> {
    let mode = fs::metadata(path).ok()?.mode();
    // What the environment adds is not in the file.
    let config = Config::load(Sources { file: Some(path.to_owned()), ..Sources::default() }).ok()?;
    let secrets = [
        ("auth.secret", config.auth.secret.is_some()),
        ("bus.password", matches!(config.bus.password(), Some(SecretSource::Given(_)))),
        ("bus.token", matches!(config.bus.token(), Some(SecretSource::Given(_)))),
        ("bus.sentinel_password", matches!(config.bus.sentinel_password(), Some(SecretSource::Given(_)))),
    ];
    let (key, _) = secrets.into_iter().find(|(_, is_there)| *is_there && mode & 0o004 != 0)?;
    Some(Verdict::Doubtful(format!(
        "{} holds {key}, and every user of this host can read it (mode {:03o}): chmod 640, or write {key}_file instead",
        path.display(),
        mode & 0o777
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// Files that hold nothing secret, or are told about elsewhere.
    const OTHERS: [&str; 10] = [
        "app.tls_cert_file",
        "app.tls_client_ca_file",
        "client.tls_cert_file",
        "client.tls_client_ca_file",
        "admin.tls_cert_file",
        "admin.tls_client_ca_file",
        "auth.public_key_file",
        "log.encryption_key_file",
        "bus.tls_ca_file",
        "bus.tls_cert_file",
    ];

    #[test]
    fn every_file_of_the_configuration_is_known_as_secret_or_not() {
        let mut config = Config::default();
        let path = std::path::PathBuf::from("a");
        for file in [
            &mut config.app.token_file,
            &mut config.app.tls_key_file,
            &mut config.client.tls_key_file,
            &mut config.admin.token_file,
            &mut config.admin.tls_key_file,
            &mut config.auth.secret_file,
        ] {
            file.clone_from(&path);
        }
        for file in [
            &mut config.bus.password_file,
            &mut config.bus.sentinel_password_file,
            &mut config.bus.token_file,
            &mut config.bus.credentials_file,
            &mut config.bus.nkey_file,
            &mut config.bus.tls_key_file,
        ] {
            *file = Some(path.clone());
        }
        let secret: Vec<_> = files(&config).into_iter().map(|(key, _)| key).collect();
        for key in Config::keys().filter(|key| key.ends_with("_file") && *key != "telemetry.audit_file") {
            assert!(secret.contains(&key) != OTHERS.contains(&key), "{key}");
        }
    }

    #[test]
    fn who_else_can_read_or_replace_a_file_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let verdict = || look_at("app.token_file", &path);
        let is_bad =
            |words: &str| matches!(verdict(), Some(Verdict::Bad(said)) if said.contains(words)).then_some(());
        let is_doubtful = |words: &str| {
            matches!(verdict(), Some(Verdict::Doubtful(said)) if said.contains(words)).then_some(())
        };
        let mode = |path: &Path, mode: u32| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        is_bad("write it, or name another file").unwrap();
        fs::write(&path, "").unwrap();
        mode(&path, 0o600);
        is_bad("is empty").unwrap();
        fs::write(&path, "short\n").unwrap();
        is_doubtful("less than 16 bytes").unwrap();
        fs::write(&path, "0123456789abcdef\n").unwrap();
        assert!(verdict().is_none());
        mode(&path, 0o640);
        assert!(verdict().is_none(), "a group may be meant to");
        mode(&path, 0o644);
        is_doubtful("chmod 600").unwrap();
        mode(&path, 0o666);
        is_bad("can write").unwrap();
        mode(&path, 0o600);
        mode(directory.path(), 0o777);
        is_bad("in the place of").unwrap();
        mode(directory.path(), 0o1777);
        assert!(verdict().is_none(), "as in /tmp");
    }
}
