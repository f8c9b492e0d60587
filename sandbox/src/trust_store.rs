//! The bundle of certificates as Java reads it: a key store of the type JKS. No well-kept crate writes one, and the format is a
//! header, the certificates and a checksum.

use aws_lc_rs::digest;

use crate::error::Error;

/// Java's customary password for what is not secret. It only seals the checksum.
pub(crate) const PASSWORD: &str = "changeit";

/// Makes a trust store of the certificates in `pem`.
pub(crate) fn from_pem(bundle: &str) -> Result<Vec<u8>, Error> {
    let problem = |problem: String| Error::CaBundle { problem };
    let blocks = pem::parse_many(bundle).map_err(|error| problem(error.to_string()))?;
    let certificates: Vec<&[u8]> =
        blocks.iter().filter(|block| block.tag() == "CERTIFICATE").map(pem::Pem::contents).collect();
    if certificates.len() != blocks.len() {
        return Err(problem("it holds something other than certificates".to_owned()));
    }
    if certificates.is_empty() {
        return Err(problem("it holds no certificate".to_owned()));
    }
    let mut store = Vec::with_capacity(bundle.len());
    store.extend_from_slice(&0xFEED_FEED_u32.to_be_bytes());
    store.extend_from_slice(&2_u32.to_be_bytes());
    store.extend_from_slice(&length(certificates.len()));
    for (number, certificate) in certificates.into_iter().enumerate() {
        store.extend_from_slice(&2_u32.to_be_bytes()); // a certificate that is trusted
        string(&mut store, &format!("ca-{number}"));
        store.extend_from_slice(&0_u64.to_be_bytes()); // made in 1970: the same bundle is the same store
        string(&mut store, "X.509");
        store.extend_from_slice(&length(certificate.len()));
        store.extend_from_slice(certificate);
    }
    let mut checksum = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    let password: Vec<u8> = PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect();
    for part in [password.as_slice(), b"Mighty Aphrodite", &store] {
        checksum.update(part);
    }
    store.extend_from_slice(checksum.finish().as_ref());
    Ok(store)
}

fn string(store: &mut Vec<u8>, text: &str) {
    store.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    store.extend_from_slice(text.as_bytes());
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_bundle_of_certificates_is_refused() {
        let key = pem::encode(&pem::Pem::new("PRIVATE KEY", vec![1, 2, 3]));
        for bundle in ["", "no certificate", key.as_str()] {
            assert!(matches!(from_pem(bundle), Err(Error::CaBundle { .. })), "{bundle:?}");
        }
    }
}
