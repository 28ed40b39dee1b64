//! Small files made on the spot.

use std::io::{Cursor, Write};

use zip::{ZipWriter, write::SimpleFileOptions};

/// A PDF of one line a page.
pub(crate) fn pdf(pages: &[&str], title: &str) -> Vec<u8> {
    let contents: Vec<Vec<u8>> =
        pages.iter().map(|line| format!("BT /F1 12 Tf 72 720 Td ({line}) Tj ET").into_bytes()).collect();
    let contents: Vec<(&str, &[u8])> = contents.iter().map(|content| ("", content.as_slice())).collect();
    pdf_of(&contents, &[], title)
}

/// A PDF of these page contents, each with entries for its dictionary, and further objects from number 100 on.
pub(crate) fn pdf_of(contents: &[(&str, &[u8])], objects: &[(&str, &[u8])], title: &str) -> Vec<u8> {
    let mut out = b"%PDF-1.4\n".to_vec();
    let mut places = Vec::new();
    let mut object = |number: usize, body: &[u8]| {
        places.push((number, out.len()));
        out.extend(format!("{number} 0 obj\n").bytes());
        out.extend(body);
        out.extend(b"\nendobj\n");
    };
    let stream = |entries: &str, content: &[u8]| {
        let mut body = format!("<< /Length {} {entries} >>\nstream\n", content.len()).into_bytes();
        body.extend(content);
        body.extend(b"\nendstream");
        body
    };
    let kids: String = (0..contents.len()).map(|page| format!("{} 0 R ", 10 + 2 * page)).collect();
    let more: String = (0..objects.len()).map(|n| format!("/X{n} {} 0 R ", 100 + n)).collect();
    object(1, b"<< /Type /Catalog /Pages 2 0 R >>");
    object(
        2,
        format!("<< /Type /Pages /Kids [{kids}] /Count {} /MediaBox [0 0 612 792] >>", contents.len()).as_bytes(),
    );
    object(3, b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>");
    object(4, format!("<< /Title ({title}) >>").as_bytes());
    for (page, (entries, content)) in contents.iter().enumerate() {
        let number = 10 + 2 * page;
        let resources = format!("<< /Font << /F1 3 0 R >> /XObject << {more} >> >>");
        let body = format!("<< /Type /Page /Parent 2 0 R /Contents {} 0 R /Resources {resources} >>", number + 1);
        object(number, body.as_bytes());
        object(number + 1, &stream(entries, content));
    }
    for (n, (entries, content)) in objects.iter().enumerate() {
        object(100 + n, &stream(entries, content));
    }
    let start = out.len();
    let size = places.iter().map(|(number, _)| number + 1).max().unwrap_or(0);
    out.extend(b"xref\n0 1\n0000000000 65535 f \n");
    for (number, place) in places {
        out.extend(format!("{number} 1\n{place:010} 00000 n \n").bytes());
    }
    out.extend(format!("trailer\n<< /Size {size} /Root 1 0 R /Info 4 0 R >>\nstartxref\n{start}\n%%EOF\n").bytes());
    out
}

/// Packs as PDF's `FlateDecode` unpacks.
pub(crate) fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn paragraph(text: &str) -> String {
    format!("<w:p><w:r><w:t>{text}</w:t></w:r></w:p>")
}

/// A DOCX of this body.
pub(crate) fn docx(body: &str, title: Option<&str>) -> Vec<u8> {
    let document = format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><w:document xmlns:w="w" xmlns:mc="mc"><w:body>{body}</w:body></w:document>"#
    );
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file("word/document.xml", SimpleFileOptions::default()).unwrap();
    archive.write_all(document.as_bytes()).unwrap();
    if let Some(title) = title {
        archive.start_file("docProps/core.xml", SimpleFileOptions::default()).unwrap();
        let properties = format!("<p xmlns:dc='dc'><dc:creator>Ada</dc:creator><dc:title>{title}</dc:title></p>");
        archive.write_all(properties.as_bytes()).unwrap();
    }
    archive.finish().unwrap().into_inner()
}
