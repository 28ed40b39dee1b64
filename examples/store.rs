//! Looks after a library's store: numbers, checksums, repair, copies, shards, adapter versions. Loads no model.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use lloco_core::{
    Digest,
    store::{Adapter, Damage, Document, Group, LocalStore, Store},
};
use lloco_examples::{Output, Result};
use serde_json::{Value, json};

/// Look after a library's store
#[derive(Parser)]
struct Args {
    /// The library's directory
    #[arg(long, value_name = "DIR")]
    store: PathBuf,

    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    output: Output,
}

#[derive(Subcommand)]
enum Verb {
    /// Count what the store holds
    Stats,
    /// List the documents, or those of a group
    List {
        #[arg(long)]
        group: Option<String>,
    },
    /// List the groups and their adapter versions
    Groups,
    /// Remove documents, with what only they use
    Remove { documents: Vec<String> },
    /// Compare every file with its checksum
    Verify,
    /// Forget damaged summaries, so that `ingest` compresses their documents again
    Repair,
    /// Make a new catalogue from the store's files, if it is damaged or lost
    Recover,
    /// Remove what killed processes left, and shrink the catalogue
    Compact,
    /// Take over the documents of other stores, such as the shards of one corpus
    Merge {
        stores: Vec<PathBuf>,
        /// Take over this encoder's summaries where there are another's; `stats` lists the ids
        #[arg(long, value_name = "ID")]
        encoder: Option<String>,
    },
    /// Remove the summaries of an encoder that no document shows any more; `stats` lists the ids
    Forget { encoder: String },
    /// Copy documents, with summaries and adapters, into another store
    Export {
        to: PathBuf,
        /// Only this document
        #[arg(long)]
        document: Option<String>,
        /// Only this group
        #[arg(long)]
        group: Option<String>,
    },
    /// Write a document's softprompt as prompt embeddings, one safetensors file
    Softprompt { document: String, to: PathBuf },
    /// Give a group an adapter that comes from elsewhere, in PEFT layout: the newest version, and the one in use
    Adopt { group: String, adapter: PathBuf },
    /// Go back to a group's adapter before the current one, or to a version
    Rollback { group: String, version: Option<u32> },
}

fn run(args: Args) -> Result {
    let report = match args.verb {
        Verb::Stats => {
            let store = LocalStore::open_read_only(&args.store)?;
            let mut report = json!(store.stats()?);
            report["encoders"] = json!(store.encoders()?);
            report
        }
        Verb::List { group } => {
            let documents = LocalStore::open_read_only(&args.store)?.documents(group.as_deref())?;
            json!(documents.into_iter().map(listed).collect::<Vec<_>>())
        }
        Verb::Groups => {
            let group = |Group { name, documents, adapter, versions, .. }| json!({ "group": name, "documents": documents, "adapter": adapter, "versions": versions });
            json!(LocalStore::open_read_only(&args.store)?.groups()?.into_iter().map(group).collect::<Vec<_>>())
        }
        Verb::Remove { documents } => {
            let (store, mut unknown) = (open(&args.store)?, Vec::new());
            for id in &documents {
                if !store.remove(id)? {
                    unknown.push(id);
                }
            }
            json!({ "removed": documents.len() - unknown.len(), "unknown": unknown })
        }
        Verb::Verify => damages(&LocalStore::open_read_only(&args.store)?.verify()?),
        Verb::Repair => damages(&open(&args.store)?.repair()?),
        Verb::Recover => json!({ "recovered": LocalStore::recover(&args.store)? }),
        Verb::Compact => json!(open(&args.store)?.compact()?),
        Verb::Merge { stores, encoder } => {
            let (store, mut reports) = (LocalStore::open(&args.store)?, Vec::new());
            let encoder = encoder.map(|id| id.parse::<Digest>()).transpose()?;
            for path in stores {
                let part = LocalStore::open_read_only(&path)?;
                reports.push(json!(match &encoder {
                    Some(encoder) => store.merge_encoded(&part, encoder, |_| true)?,
                    None => store.merge(&part, |_| true)?,
                }));
            }
            json!(reports)
        }
        Verb::Forget { encoder } => json!(open(&args.store)?.forget_encoder(&encoder.parse()?)?),
        Verb::Export { to, document, group } => {
            let is = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
            let store = LocalStore::open_read_only(&args.store)?;
            json!(store.export(to, |found| is(&document, &found.id) && is(&group, &found.group))?)
        }
        Verb::Softprompt { document, to } => {
            let store = LocalStore::open_read_only(&args.store)?;
            let found = store.document(&document)?.and_then(|found| found.summary);
            let encoder = found.ok_or_else(|| format!("there is no compressed document {document:?}"))?.encoder;
            store.export_softprompt(&document, &encoder, &to)?;
            json!({ "document": document, "file": to })
        }
        Verb::Adopt { group, adapter } => current(&group, &open(&args.store)?.put_adapter(&group, &adapter)?),
        Verb::Rollback { group, version } => current(&group, &open(&args.store)?.set_adapter(&group, version)?),
    };
    args.output.line(format_args!("{report:#}"))?;
    Ok(args.output.report(&report)?)
}

fn open(path: &PathBuf) -> Result<LocalStore> {
    Ok(lloco_core::store::StoreOptions::new().create(false).open(path)?)
}

fn listed(document: Document) -> Value {
    let Document { id, group, title, text_bytes, summary, staged, .. } = document;
    let waits = summary.is_none() || staged.is_some();
    let (encoder, tokens) = summary.map(|summary| (summary.encoder.id(), summary.tokens)).unzip();
    json!({ "document": id, "group": group, "title": title, "bytes": text_bytes, "tokens": tokens, "encoder": encoder, "waits": waits })
}

fn current(group: &str, adapter: &Adapter) -> Value {
    json!({ "group": group, "version": adapter.version, "path": adapter.path })
}

fn damages(found: &[Damage]) -> Value {
    json!({ "damaged": found })
}

fn main() -> ExitCode {
    lloco_examples::main(run)
}
