//! Frames of any bytes, as the agent and the local supervisor read them from a socket, and as
//! their clients do.
#![no_main]

use std::io;

use deploykit_agent::control::{Client, Hello, PROTOCOL, Report, Request, Welcome, program};
use deploykit_agent::wire::{Call, decode, decode_answer, encode, read_frame, write_frame};
use libfuzzer_sys::fuzz_target;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Builder;

fuzz_target!(|input: &[u8]| {
    let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let mut rest = input;
        while let Ok(frame) = read_frame(&mut rest).await {
            let _ = decode::<Hello>(&frame);
            let _ = decode_answer::<Report>(&frame);
            if let Ok(call) = decode::<Call<Request>>(&frame) {
                let again = encode(&call).and_then(|text| decode::<Call<Request>>(&text));
                let again = again.expect("what was read can be written and read again");
                assert_eq!(format!("{call:?}"), format!("{again:?}"));
            }
        }
        // An agent that greets, and then says anything.
        let said = input.to_vec();
        let client = Client::new(move || {
            let said = said.clone();
            async move {
                let (ours, mut theirs) = tokio::io::duplex(64 << 10);
                tokio::spawn(async move {
                    let welcome = encode(&Welcome { protocol: PROTOCOL, program: program() })?;
                    write_frame(&mut theirs, &welcome).await?;
                    read_frame(&mut theirs).await?;
                    theirs.write_all(&said).await?;
                    io::Result::Ok(())
                });
                Ok(ours)
            }
        });
        // The peer ends after what it has said, so nothing waits for a deadline.
        let _ = client.inspect().await;
    });
});
