//! A server's admin URL, which holds a password. It comes from a file, from standard input or from the environment, never from
//! an argument: `ps` shows arguments to every user of the machine. No error names what was read, nor the file: the commonest
//! mistake is the URL itself in the file's place.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Read};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use secrecy::SecretString;

/// The variable that has it where no file is named.
pub(super) const VARIABLE: &str = "FREEHOLD_ADMIN_URL";

/// Reads it from the file; `-` is standard input.
pub(super) fn from_file(file: &Path) -> Result<SecretString> {
    if file != Path::new("-") {
        let file = std::fs::File::open(file).context(
            "could not open the file of --admin-url-file; the option takes the path of a file that holds the URL, or -",
        )?;
        return from_reader(file);
    }
    let stdin = io::stdin();
    if stdin.is_terminal() {
        bail!(
            "standard input is a terminal, which would show the admin URL; pipe the URL in, or name a file that holds it"
        );
    }
    from_reader(stdin)
}

fn from_reader(mut reader: impl Read) -> Result<SecretString> {
    let mut text = String::new();
    reader.read_to_string(&mut text).context("could not read what --admin-url-file names")?;
    of(&text).context("what --admin-url-file names is empty; write the admin URL into it")
}

/// Takes it from the value of [`VARIABLE`].
pub(super) fn from_environment(value: Option<OsString>) -> Result<SecretString> {
    // Not by `VarError`, which shows what it could not read.
    let text = value.map(OsString::into_string).transpose();
    let text = text.ok().with_context(|| format!("{VARIABLE} is no UTF-8; set it again"))?;
    of(&text.unwrap_or_default()).with_context(|| {
        format!("the admin URL is missing; name a file that holds it with --admin-url-file (- is standard input), or set {VARIABLE}")
    })
}

fn of(text: &str) -> Option<SecretString> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use secrecy::ExposeSecret as _;

    use super::*;

    const URL: &str = "postgres://admin:planted-password@db.test/postgres";

    #[test]
    fn it_is_read_from_a_file_or_a_variable_without_the_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        std::fs::write(&file, format!("{URL}\n")).unwrap();
        assert_eq!(from_file(&file).unwrap().expose_secret(), URL);
        assert_eq!(from_reader(URL.as_bytes()).unwrap().expose_secret(), URL);
        assert_eq!(from_environment(Some(format!(" {URL}").into())).unwrap().expose_secret(), URL);
    }

    #[test]
    fn where_there_is_none_the_ways_to_give_it_are_told() {
        for nothing in [None, Some(OsString::new()), Some(" \n".into())] {
            let error = from_environment(nothing).unwrap_err().to_string();
            assert!(error.contains("--admin-url-file") && error.contains(VARIABLE), "{error}");
        }
        assert!(from_reader(&b"\n"[..]).unwrap_err().to_string().contains("is empty"));
    }

    #[test]
    fn no_error_shows_it() {
        let broken: Vec<u8> = [URL.as_bytes(), &[0xff]].concat();
        let errors = [
            from_file(Path::new(URL)).unwrap_err(),
            from_reader(broken.as_slice()).unwrap_err(),
            from_environment(Some(OsString::from_vec(broken))).unwrap_err(),
        ];
        for error in errors {
            assert!(!format!("{error:#} {error:?}").contains("planted-password"), "{error:?}");
        }
    }
}
