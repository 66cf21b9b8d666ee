use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The folder that data set folders lie in: `mnist/`, `fashion-mnist/`, `cifar10/`.
///
/// ```
/// use kiln_data::DataDir;
/// let dir = DataDir::new("data");
/// assert_eq!(dir.folder("mnist"), std::path::Path::new("data").join("mnist"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The folder `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder that the environment names: `KILN_DATA`, else `kiln` in the user's cache folder, which
    /// is `XDG_CACHE_HOME`, else the platform's usual place (`~/.cache`; `~/Library/Caches` on macOS;
    /// `%LOCALAPPDATA%` on Windows). Where there is no such place either: `kiln-data` in the current folder.
    ///
    /// This, [`DataDir::default`], which is the same, and [`crate::Fetch::default`] are the only places of this crate that
    /// read the environment.
    pub fn from_env() -> Self {
        Self::resolve(None, |name| std::env::var_os(name))
    }

    /// [`DataDir::from_env`] with the folder given first if it is, and the environment as a function.
    pub fn resolve(explicit: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        if let Some(path) = explicit {
            return Self::new(path);
        }
        if let Some(path) = variable("KILN_DATA").filter(|value| !value.is_empty()) {
            return Self(path.into());
        }
        Self(cache_folder(variable).unwrap_or_else(|| PathBuf::from("kiln-data")))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The folder of one data set.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// `kiln` in the user's cache folder, given the environment as a function: in `XDG_CACHE_HOME`, else in the
/// platform's usual place. `None` where there is no such place.
pub fn cache_folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let variable = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // The XDG specification has relative paths ignored.
    let cache = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute()).or_else(|| {
        if cfg!(target_os = "windows") {
            variable("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            variable("HOME").map(|home| home.join("Library/Caches"))
        } else {
            variable("HOME").map(|home| home.join(".cache"))
        }
    });
    cache.map(|cache| cache.join("kiln"))
}

/// [`DataDir::from_env`].
impl Default for DataDir {
    fn default() -> Self {
        Self::from_env()
    }
}

impl From<PathBuf> for DataDir {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

impl From<&Path> for DataDir {
    fn from(path: &Path) -> Self {
        Self(path.into())
    }
}

impl From<&str> for DataDir {
    fn from(path: &str) -> Self {
        Self(path.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(all(unix, not(target_os = "macos")))]
    fn first_that_is_set_wins() {
        type Variables = &'static [(&'static str, &'static str)];
        let cases: [(Option<&str>, Variables, &str); 7] = [
            (Some("here"), &[("KILN_DATA", "/k")], "here"),
            (None, &[("KILN_DATA", "/k"), ("XDG_CACHE_HOME", "/x"), ("HOME", "/h")], "/k"),
            (None, &[("KILN_DATA", ""), ("XDG_CACHE_HOME", "/x"), ("HOME", "/h")], "/x/kiln"),
            (None, &[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")], "/x/kiln"),
            (None, &[("XDG_CACHE_HOME", "relative"), ("HOME", "/h")], "/h/.cache/kiln"),
            (None, &[("HOME", "/h")], "/h/.cache/kiln"),
            (None, &[], "kiln-data"),
        ];
        for (explicit, variables, want) in cases {
            let lookup =
                |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
            let dir = DataDir::resolve(explicit.map(Path::new), lookup);
            assert_eq!(dir.path(), Path::new(want), "{explicit:?} {variables:?}");
        }
    }
}
