//! Certificates for servers with TLS: an authority of the test's own, and what it vouches for.

use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A directory with `ca.pem`, and `server.pem` and `client.pem` with their keys. The server's names are
/// `localhost` and `127.0.0.1`.
pub(crate) struct Certificates {
    directory: TempDir,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let made = Self { directory: TempDir::with_prefix("sidewire-test-tls-").expect("a directory") };
        made.renew();
        made
    }

    /// Puts others in their place, of another authority.
    pub(crate) fn renew(&self) {
        self.openssl(&["genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ca.key"]);
        self.openssl(&["req -x509 -new -key ca.key -days 30 -out ca.pem -subj", "/CN=Test authority"]);
        for (name, use_of_key) in [("server", "serverAuth"), ("client", "clientAuth")] {
            std::fs::write(
                self.path(&format!("{name}.extensions")),
                format!(
                    "basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={use_of_key}\n"
                ),
            )
            .expect("the directory can be written");
            self.openssl(&[&format!(
                "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"
            )]);
            self.openssl(&[&format!("req -new -key {name}.key -out {name}.request -subj /CN={name}")]);
            self.openssl(&[&Self::signing(name)]);
        }
    }

    /// Puts a server's certificate in the place of the present one that has ended long ago.
    pub(crate) fn expire(&self) {
        self.run("faketime", &["2020-01-01 00:00:00", "openssl"], &[&Self::signing("server")]);
    }

    fn signing(name: &str) -> String {
        format!(
            "x509 -req -in {name}.request -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile {name}.extensions -out {name}.pem"
        )
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs `openssl` with the words of the first text, and the others as they are.
    fn openssl(&self, arguments: &[&str]) {
        self.run("openssl", &[], arguments);
    }

    fn run(&self, program: &str, before: &[&str], arguments: &[&str]) {
        let (words, rest) = arguments.split_first().expect("a command");
        let output = Command::new(program)
            .args(before)
            .args(words.split(' '))
            .args(rest)
            .current_dir(self.directory.path())
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}; `make setup` installs it"));
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A path as text, for a configuration file.
pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("a temporary path is UTF-8").to_owned()
}
