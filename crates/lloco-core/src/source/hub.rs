//! The hub route (feature `hub`), blocking, with the user's token, endpoint and hub cache.

use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use super::cache::verify_file;
use super::pinned::PinnedModel;
use crate::error::{Attempt, Route, without_addresses};

/// Small files that a checkpoint may have, fetched before the weights: whole weights in the
/// hub's cache then mean that these are there too.
const COMPANIONS: [&str; 11] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "adapter_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "model.safetensors.index.json",
];

type Observe<'a> = &'a dyn Fn(&str, u64, Option<u64>);

/// Fetches a pinned model into `staging`, from the hub's own cache where it is there already.
pub(super) fn fetch_pinned(
    staging: PathBuf,
    scratch: PathBuf,
    model: &PinnedModel,
    observe: Observe<'_>,
) -> Result<(), String> {
    let place = model.hub.as_ref().ok_or("the hub does not hold this model")?;
    let (id, revision) = (place.id.to_owned(), place.revision.to_owned());
    let cached = hub_cache()?.model(id.clone());
    let repo = Repo::with_revision(id, RepoType::Model, revision);
    let api = ApiBuilder::from_env()
        .with_progress(false)
        .with_cache_dir(scratch)
        .build()
        .map_err(|e| without_addresses(&e.to_string()))?
        .repo(repo);
    for file in model.files {
        let target = staging.join(file.path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
        }
        let found = cached.get(file.path).filter(|path| verify_file(path, file).is_ok());
        let source = match found {
            Some(path) => path,
            None => download(&api, file.path, observe)?,
        };
        fs::copy(&source, &target).map_err(|e| format!("{}: {e}", target.display()))?;
        verify_file(&target, file)?;
    }
    Ok(())
}

/// A repository's checkpoint directory, or the one file asked for, in the hub's cache.
pub(super) fn fetch(
    id: &str,
    revision: Option<&str>,
    file: Option<&str>,
    offline: bool,
    observe: Observe<'_>,
) -> Result<PathBuf, Vec<Attempt>> {
    let repo = match revision {
        Some(revision) => Repo::with_revision(id.into(), RepoType::Model, revision.into()),
        None => Repo::model(id.into()),
    };
    let failed = |route, reason| Attempt { route, reason };
    let cached = match hub_cache() {
        Ok(cache) => cache.repo(repo.clone()),
        Err(reason) => return Err(vec![failed(Route::Cache, reason)]),
    };
    let cache_reason = match from_cache(&cached, file) {
        Ok(path) => return Ok(path),
        Err(reason) => reason,
    };
    let fetched = if offline { Err("offline was asked for".into()) } else { from_hub(repo, &cached, file, observe) };
    fetched.map_err(|hub_reason| vec![failed(Route::Cache, cache_reason), failed(Route::Hub, hub_reason)])
}

/// The hub client's own cache, which it cannot name for a user without a home directory.
fn hub_cache() -> Result<Cache, String> {
    if dirs::home_dir().is_none() && std::env::var_os("HF_HOME").is_none() {
        return Err("no home directory; set HF_HOME".into());
    }
    Ok(Cache::from_env())
}

/// What the hub's cache holds whole.
fn from_cache(cached: &CacheRepo, file: Option<&str>) -> Result<PathBuf, String> {
    let get = |name: &str| cached.get(name).ok_or_else(|| format!("{name} is not cached"));
    if let Some(file) = file {
        return get(file);
    }
    let config = get("config.json").or_else(|reason| get("adapter_config.json").map_err(|_| reason))?;
    match get("model.safetensors.index.json") {
        Ok(index) => shards(&index)?.iter().try_for_each(|shard| get(shard).map(|_| ()))?,
        Err(_) => get("model.safetensors")
            .or_else(|_| get("adapter_model.safetensors"))
            .or_else(|_| get("pytorch_model.bin"))
            .map(|_| ())?,
    }
    Ok(config.parent().map(Path::to_path_buf).unwrap_or_default())
}

/// Downloads what is missing: companions first, weights last.
fn from_hub(repo: Repo, cached: &CacheRepo, file: Option<&str>, observe: Observe<'_>) -> Result<PathBuf, String> {
    let api = ApiBuilder::from_env().with_progress(false).build();
    let api = api.map_err(|e| without_addresses(&e.to_string()))?.repo(repo);
    let get = |name: &str| match cached.get(name) {
        Some(path) => Ok(path),
        None => download(&api, name, observe),
    };
    if let Some(file) = file {
        return get(file);
    }
    let info = api.info().map_err(|e| without_addresses(&e.to_string()))?;
    let names = info.siblings.iter().map(|file| file.rfilename.as_str());
    let names: Vec<&str> = names.filter(|name| !name.contains("..")).collect();
    let weights = weights(&names)?;
    let mut directory = None;
    for name in names.iter().filter(|name| COMPANIONS.contains(name)).chain(&weights) {
        let path = get(name)?;
        if !name.contains('/') {
            directory = path.parent().map(Path::to_path_buf);
        }
    }
    directory.ok_or_else(|| "the repository holds no checkpoint".into())
}

/// Which weight files to fetch: safetensors before PyTorch's own format.
fn weights<'a>(names: &[&'a str]) -> Result<Vec<&'a str>, String> {
    let matching = |start: &str, end: &str| -> Vec<&'a str> {
        let is_match = |name: &&&str| name.starts_with(start) && name.ends_with(end);
        names.iter().filter(is_match).copied().collect()
    };
    for exact in ["model.safetensors", "adapter_model.safetensors"] {
        if let Some(name) = names.iter().find(|name| **name == exact) {
            return Ok(vec![name]);
        }
    }
    let sets = [matching("model-", ".safetensors"), matching("pytorch_model", ".bin")];
    if let Some(set) = sets.into_iter().find(|set| !set.is_empty()) {
        return Ok(set);
    }
    let gguf = matching("", ".gguf");
    if gguf.is_empty() {
        return Err("the repository holds no weights that can be read".into());
    }
    Err(format!("the repository holds several GGUF files; add one of {}", gguf.join(", ")))
}

/// The shard names of a safetensors index, in order and once each.
fn shards(index: &Path) -> Result<Vec<String>, String> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let text = fs::read(index).map_err(|e| format!("{}: {e}", index.display()))?;
    let index: Index = serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", index.display()))?;
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    Ok(names)
}

fn download(api: &ApiRepo, file: &str, observe: Observe<'_>) -> Result<PathBuf, String> {
    let meter = Meter { observe, file: file.into(), done: 0, total: None };
    api.download_with_progress(file, meter).map_err(|e| format!("{file}: {}", without_addresses(&e.to_string())))
}

/// Passes the hub client's progress on.
struct Meter<'a> {
    observe: Observe<'a>,
    file: String,
    done: u64,
    total: Option<u64>,
}

impl hf_hub::api::Progress for Meter<'_> {
    fn init(&mut self, size: usize, _filename: &str) {
        self.total = Some(size as u64);
        (self.observe)(&self.file, 0, self.total);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        (self.observe)(&self.file, self.done, self.total);
    }

    fn finish(&mut self) {}
}
