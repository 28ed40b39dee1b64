//! Documents as people have them: plain text, Markdown, HTML, PDF and DOCX.
//!
//! [`read`] goes by the file's extension; what it does not know it takes for plain text. A page ends with a form feed in the
//! text, as `pdftotext` has it, so that a byte range leads to its [page](page_of) and nothing else needs to be stored.
//!
//! HTML, PDF and DOCX need the feature `readers`. Files are not trusted: what a file may unpack to is bounded, and a
//! panic of the PDF library becomes an error. That library still takes memory and time in ways that cannot be bounded
//! from outside, so a service that reads strangers' PDFs should do so in a process with limits of its own.

#[cfg(feature = "readers")]
mod docx;
#[cfg(feature = "readers")]
mod html;
#[cfg(feature = "readers")]
mod pdf;
mod plain;

use std::{fs, path::Path};

use crate::{Error, Result};

/// Ends a page.
pub const PAGE_END: char = '\u{c}';

/// The largest HTML, PDF or DOCX file that is read, in bytes.
pub const LARGEST_FILE: u64 = 256 << 20;

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileText {
    /// Its text; [`PAGE_END`] stands behind each page where pages are known.
    pub text: String,
    /// Its title, where it carries one.
    pub title: Option<String>,
}

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Markdown,
    Html,
    Pdf,
    Docx,
}

/// Reads a file's text.
///
/// # Errors
/// [`Error::Io`]; [`Error::NotText`] for text or HTML that is not UTF-8; [`Error::Unreadable`] for a file that is
/// damaged, encrypted, too large, without text, or of a format that this build does not read.
pub fn read(path: impl AsRef<Path>) -> Result<FileText> {
    let path = path.as_ref();
    let format = Format::of(path);
    let text = || {
        let bytes = fs::read(path).map_err(|error| Error::io("read", path, error))?;
        let not_text = |e: std::string::FromUtf8Error| Error::NotText {
            path: path.to_path_buf(),
            offset: e.utf8_error().valid_up_to(),
        };
        String::from_utf8(bytes).map_err(not_text)
    };
    match format {
        Format::Text => Ok(plain::text(text()?)),
        Format::Markdown => Ok(plain::markdown(text()?)),
        Format::Html | Format::Pdf | Format::Docx => {
            let unreadable =
                |reason: String| Error::Unreadable { path: path.to_path_buf(), format: format.name(), reason };
            let length = fs::metadata(path).map_err(|error| Error::io("read", path, error))?.len();
            if length > LARGEST_FILE {
                return Err(unreadable(format!("it has {length} bytes, read are up to {LARGEST_FILE}: split it")));
            }
            #[cfg(feature = "readers")]
            return match format {
                Format::Html => html::read(&text()?).map_err(unreadable),
                Format::Pdf => {
                    pdf::read(&fs::read(path).map_err(|error| Error::io("read", path, error))?).map_err(unreadable)
                }
                _ => docx::read(fs::File::open(path).map_err(|error| Error::io("read", path, error))?)
                    .map_err(unreadable),
            };
            #[cfg(not(feature = "readers"))]
            Err(unreadable("this program was built without the feature `readers`".into()))
        }
    }
}

/// The page, from 1, on which a byte of a text lies; none where the text has no pages.
///
/// ```
/// use lloco_core::reader::page_of;
///
/// assert_eq!(page_of("first\u{c}second\u{c}", 8), Some(2));
/// assert_eq!(page_of("a letter", 3), None);
/// ```
#[must_use]
pub fn page_of(text: &str, byte: usize) -> Option<usize> {
    let ends = |part: &[u8]| part.iter().filter(|&&b| b == PAGE_END as u8).count();
    let bytes = text.as_bytes();
    let (before, behind) = bytes.split_at_checked(byte).unwrap_or((bytes, &[]));
    let before = ends(before);
    (before > 0 || ends(behind) > 0).then_some(before + 1)
}

/// Whether a file is read as it stands, so that its text is as long as the file.
pub(crate) fn is_text(path: &Path) -> bool {
    matches!(Format::of(path), Format::Text | Format::Markdown)
}

impl Format {
    fn of(path: &Path) -> Self {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        match extension.as_str() {
            "md" | "markdown" => Self::Markdown,
            "html" | "htm" | "xhtml" => Self::Html,
            "pdf" => Self::Pdf,
            "docx" => Self::Docx,
            _ => Self::Text,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Markdown => "Markdown",
            Self::Html => "HTML",
            Self::Pdf => "PDF",
            Self::Docx => "DOCX",
        }
    }
}

/// A title worth showing: without the blanks around and within, not empty, not endless.
fn title(text: &str) -> Option<String> {
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect();
    (!text.is_empty()).then_some(text)
}
