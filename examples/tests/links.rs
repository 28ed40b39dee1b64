//! Every relative link in the repository's Markdown leads to a file.

use std::path::{Path, PathBuf};

/// Markdown files below `directory`, without build output and hidden folders.
fn pages(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("readable directory") {
        let path = entry.expect("readable entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            pages(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// What stands between `](` and `)`, outside code blocks.
fn links(markdown: &str) -> Vec<String> {
    let outside_code = markdown.split("```").step_by(2).collect::<String>();
    let starts = outside_code.split("](").skip(1);
    starts.filter_map(|rest| rest.split_once(')')).map(|(link, _)| link.to_owned()).collect()
}

#[test]
fn markdown_links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut found = Vec::new();
    pages(root, &mut found);
    assert!(found.contains(&root.join("README.md")));

    let mut broken = Vec::new();
    for page in &found {
        for link in links(&std::fs::read_to_string(page).expect("UTF-8 page")) {
            let file = link.split('#').next().unwrap_or_default();
            let elsewhere = file.is_empty() || file.contains("://") || file.starts_with("mailto:");
            if !elsewhere && !page.with_file_name(file).exists() {
                broken.push(format!("{}: {link}", page.strip_prefix(root).unwrap_or(page).display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
