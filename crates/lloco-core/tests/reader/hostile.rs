//! Files made to do harm, and good files changed at random.

use std::{
    env, fs,
    io::{Cursor, Write},
    time::{Duration, Instant},
};

use lloco_core::{Error, reader};
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{
    TestFile,
    files::{deflate, docx, paragraph, pdf, pdf_of},
    read, refusal,
};

const DRAWN: &[u8] = b"BT /F1 12 Tf 72 720 Td (text) Tj ET";
const FLATE: &str = "/Filter /FlateDecode";

#[test]
fn a_packed_page_is_read() {
    let content = deflate(DRAWN);
    assert_eq!(read("a.pdf", pdf_of(&[(FLATE, &content)], &[], "")).unwrap().text.trim(), "text");
    let form = "/Type /XObject /Subtype /Form /Resources << /Font << /F1 3 0 R >> >>";
    let drawn = pdf_of(&[("", b"/X0 Do /X0 Do")], &[(form, DRAWN)], "");
    assert_eq!(read("a.pdf", drawn).unwrap().text.matches("text").count(), 2);
}

#[test]
fn what_unpacks_to_too_much_is_refused() {
    let bomb = deflate(&vec![b' '; 200 << 20]);
    assert!(bomb.len() < 2 << 20);
    let reason = refusal("a.pdf", pdf_of(&[(FLATE, &bomb)], &[], ""));
    assert!(reason.contains("unpacks to more"), "{reason}");
    let small = deflate(&vec![b' '; 30 << 20]);
    let reason = refusal("a.pdf", pdf_of(&[(FLATE, &small)], &[], ""));
    assert!(reason.contains("unpacks to more"), "{reason}");
    let twice = deflate(&bomb);
    let reason = refusal("a.pdf", pdf_of(&[("/Filter [/FlateDecode /FlateDecode]", &twice)], &[], ""));
    assert!(reason.contains("unpacks to more"), "{reason}");

    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file("word/document.xml", SimpleFileOptions::default()).unwrap();
    archive.write_all(b"<w:document xmlns:w='w'><w:body>").unwrap();
    let blanks = vec![b' '; 1 << 20];
    for _ in 0..260 {
        archive.write_all(&blanks).unwrap();
    }
    let archive = archive.finish().unwrap().into_inner();
    assert!(archive.len() < 2 << 20);
    let reason = refusal("a.docx", archive);
    assert!(reason.contains("unpacks to more") || reason.contains("broken"), "{reason}");
}

#[test]
fn pages_that_never_end_are_refused() {
    let form = |own: &str| format!("/Type /XObject /Subtype /Form /Resources << /XObject << {own} >> >>");
    let page: (&str, &[u8]) = ("", b"/X0 Do");
    // It draws itself.
    let reason = refusal("a.pdf", pdf_of(&[page], &[(&form("/X0 100 0 R"), b"/X0 Do")], ""));
    assert!(reason.contains("contains itself"), "{reason}");
    // It has no resources of its own, so it would draw itself through its caller's.
    read("a.pdf", pdf_of(&[page], &[("/Type /XObject /Subtype /Form", b"/X0 Do")], "")).unwrap_err();
    // Ten pieces, each of which draws the next a hundred times.
    let draws = b"/X0 Do ".repeat(100);
    let own: Vec<String> = (1..=10).map(|next| form(&format!("/X0 {} 0 R", 100 + next))).collect();
    let pieces: Vec<(&str, &[u8])> = own.iter().map(|own| (own.as_str(), draws.as_slice())).collect();
    let reason = refusal("a.pdf", pdf_of(&[page], &pieces, ""));
    assert!(reason.contains("instructions"), "{reason}");
    // A page that is its own parent.
    let text = String::from_utf8(pdf(&["x"], "")).unwrap().replace("/Parent 2 0 R /", "/Parent 10 0 R/");
    let reason = refusal("a.pdf", text.replace("/MediaBox", "/MediaBux"));
    assert!(reason.contains("hang on themselves"), "{reason}");
}

#[test]
fn encrypted_files_are_named() {
    let text = String::from_utf8(pdf(&["x"], "")).unwrap().replace("/Root 1 0 R", "/Root 1 0 R /Encrypt 4 0 R");
    assert!(refusal("a.pdf", text).contains("encrypted"));
}

#[test]
fn deep_html_is_refused_and_wide_html_is_read() {
    for tag in ["div", "b", "table", "span", "blockquote"] {
        assert!(refusal("a.html", format!("<{tag}>").repeat(100_000) + "x").contains("nested"), "{tag}");
        let start = Instant::now();
        drop(read("a.html", format!("<{tag}>").repeat(1900) + "x"));
        assert!(start.elapsed() < Duration::from_secs(20), "{tag} takes {:?}", start.elapsed());
    }
    let wide = "<p>word <b>bold</b><br>".repeat(20_000);
    assert_eq!(read("a.html", wide).unwrap().text.matches("bold").count(), 20_000);
}

#[test]
fn xml_tricks_do_nothing() {
    let body = "<!DOCTYPE a [<!ENTITY x 'xxxxxxxxxx'>]><w:p><w:r><w:t>&x;</w:t></w:r></w:p>";
    assert!(refusal("a.docx", docx(body, None)).contains("document type"));
    assert_eq!(read("a.docx", docx(&paragraph("a&nosuch;b"), None)).unwrap().text, "ab");
    let deep = "<w:p>".repeat(200_000);
    read("a.docx", docx(&deep, None)).unwrap_err();
}

/// Seconds for each format: a fraction here, more where LLOCO_FUZZ_SECONDS asks for it.
fn budget() -> Duration {
    let asked = env::var("LLOCO_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs_f64(asked.unwrap_or(0.7))
}

/// Changes good files at random: bytes, stretches, lengths. Whatever comes out is read or refused.
fn mutate(name: &str, good: &[Vec<u8>]) {
    // Expected panics of the PDF library would fill the test's output.
    std::panic::set_hook(Box::new(|_| {}));
    let mut state = 7_u64;
    let mut below = |end: usize| {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        ((state ^ (state >> 29)) >> 16) as usize % end.max(1)
    };
    let end = Instant::now() + budget();
    let file = TestFile::new(name, "");
    let (mut rounds, mut read) = (0, 0);
    while Instant::now() < end || rounds < 20 {
        let mut bytes = good[below(good.len())].clone();
        for _ in 0..1 + below(4) {
            let place = below(bytes.len());
            match below(5) {
                0 => bytes.truncate(place.max(1)),
                1 => {
                    let piece = bytes[place..(place + below(40)).min(bytes.len())].to_vec();
                    let to = below(bytes.len());
                    bytes.splice(to..to, piece);
                }
                2 => drop(bytes.drain(place..(place + below(9)).min(bytes.len()))),
                3 if bytes[place].is_ascii_digit() => bytes[place] = b'0' + below(10) as u8,
                _ => bytes[place] = below(256) as u8,
            }
            if bytes.is_empty() {
                bytes.push(b' ');
            }
        }
        fs::write(&file.path, &bytes).unwrap();
        match reader::read(&file.path) {
            Ok(_) => read += 1,
            Err(Error::Unreadable { .. } | Error::NotText { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
        rounds += 1;
    }
    drop(std::panic::take_hook());
    assert!(read > 0, "{name}: none of {rounds} files was read");
}

#[test]
fn changed_pdfs() {
    let form = "/Type /XObject /Subtype /Form /Resources << /Font << /F1 3 0 R >> >>";
    let packed = deflate(DRAWN);
    let all = [
        pdf(&["The pump is red.", "The roof leaks."], "A title"),
        pdf_of(&[("", b"/X0 Do q 1 0 0 1 5 5 cm Q"), (FLATE, &packed)], &[(form, DRAWN)], "x"),
    ];
    mutate("a.pdf", &all);
}

#[test]
fn changed_docx() {
    let body = paragraph("one") + "<w:tbl><w:tr><w:tc>" + &paragraph("two &amp; three") + "</w:tc></w:tr></w:tbl>";
    let whole = docx(&body, Some("title"));
    mutate("a.docx", &[whole]);
}

#[test]
fn changed_html() {
    let html = "<html><head><title>T</title></head><body><table><tr><td>a<td>b</table><ul><li>c</ul><pre>d\n e</pre>\
        <p>f&amp;g<a href=x>h</a><img alt=i><h1>j</h1><dl><dt>k<dd>l</dl></body></html>";
    mutate("a.html", &[html.as_bytes().to_vec()]);
}

#[test]
fn changed_markdown() {
    mutate("a.md", &[b"# A\n\n```\n# b\n```\n\nC\n===\n\xC3\xA9".to_vec()]);
}
