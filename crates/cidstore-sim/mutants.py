"""Breaks the store in 22 ways, each behind MUTANT=n, to see whether the simulator finds it.

    python3 mutants.py COPY_OF_THE_TREE; cargo build --release -p cidstore-sim   # in that copy
    MUTANT=1 target/release/cidstore-sim --seeds 10000

Written for the sources as they were before files were merged late: some places have to be found anew.
"""
import sys,os
root=sys.argv[1]
def sub(path, old, new, count=1):
    p=os.path.join(root,path); s=open(p).read()
    assert old in s, (path, old)
    s=s.replace(old,new,count); open(p,'w').write(s)
# the switch, in cidstore-disk, which all know
p=os.path.join(root,'crates/cidstore-disk/src/lib.rs'); s=open(p).read()
s+='''
/// Mutant.
pub fn mutant(n: u32) -> bool {
    static N: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *N.get_or_init(|| std::env::var("MUTANT").ok().and_then(|v| v.parse().ok()).unwrap_or(0)) == n
}
'''
open(p,'w').write(s)
W='crates/cidstore-wal/src/'; E='crates/cidstore-engine/src/'
sub(W+'wal.rs','if let Err(error) = self.active.file.sync_data() {','if !cidstore_disk::mutant(1) && let Err(error) = self.active.file.sync_data() {')
sub(W+'wal.rs','if let Err(error) = self.disk.sync_dir(&self.dir) {','if !cidstore_disk::mutant(2) && let Err(error) = self.disk.sync_dir(&self.dir) {')
sub(E+'store.rs','Durability::Fsync => self.wal.sync()?,','Durability::Fsync if !cidstore_disk::mutant(3) => self.wal.sync()?,\n                Durability::Fsync => self.wal.flush()?,')
sub(E+'seal.rs','    file.sync_all()?;\n    Ok(head)','    if !cidstore_disk::mutant(4) { file.sync_all()?; }\n    Ok(head)')
sub(E+'seal.rs','place.disk.sync_dir(place.dir)?;','if !cidstore_disk::mutant(5) { place.disk.sync_dir(place.dir)?; }')
sub(E+'catalog.rs','''    disk.rename(&beside(path, ".new"), path)?;
    Ok(sync_dir_of(disk, path)?)''','''    disk.rename(&beside(path, ".new"), path)?;
    if cidstore_disk::mutant(6) { return Ok(()); }
    Ok(sync_dir_of(disk, path)?)''')
sub(E+'catalog.rs','    Ok(file.sync_all()?)','    if cidstore_disk::mutant(7) { return Ok(()); }\n    Ok(file.sync_all()?)')
sub(E+'maintain.rs','catalog.sealed_seq = catalog.sealed_seq.max(last_seq);','catalog.sealed_seq = catalog.sealed_seq.max(last_seq + u64::from(cidstore_disk::mutant(8)));')
sub(W+'wal.rs','[oldest, _, ..] if oldest.last_seq < seq =>','[oldest, _, ..] if oldest.last_seq < seq + u64::from(cidstore_disk::mutant(9)) =>')
sub(E+'maintain.rs','Merge::new(&claim.runs, claim.bottom, stop)','Merge::new(&claim.runs, claim.bottom || cidstore_disk::mutant(10), stop)')
sub(W+'record.rs','(checksum(signature, covered) == header.crc)','(cidstore_disk::mutant(11) || checksum(signature, covered) == header.crc)')
sub(W+'wal.rs','let cut = self.active.cut(&self.store_id, start);','let cut = if cidstore_disk::mutant(12) { Ok(()) } else { self.active.cut(&self.store_id, start) };')
sub(W+'wal.rs','                return Err(self.latch(&error));\n            }\n            self.synced_seq','                if cidstore_disk::mutant(13) { self.discard(); return Err(WalError::Disk(error)); }\n                return Err(self.latch(&error));\n            }\n            self.synced_seq')
s14=open(os.path.join(root,W+'recover.rs')).read()
sub(W+'recover.rs','last.file.sync_all()?;','if !cidstore_disk::mutant(14) { last.file.sync_all()?; }')
sub(W+'wal.rs','''            self.disk.sync_dir(&self.dir)?;
            self.log''','''            if !cidstore_disk::mutant(15) { self.disk.sync_dir(&self.dir)?; }
            self.log''')
sub(W+'segment.rs','if damaged { End::Damaged }','if damaged && !cidstore_disk::mutant(16) { End::Damaged }')
sub(E+'store.rs','staged.build();\n    let mut told','if !cidstore_disk::mutant(17) { staged.build(); }\n    let mut told')
sub(E+'garbage.rs','catalog.is_in_use()','!cidstore_disk::mutant(18) && catalog.is_in_use()')
sub(W+'segment.rs','''        file.sync_all()?;
        disk.rename(&new''','''        if !cidstore_disk::mutant(19) { file.sync_all()?; }
        disk.rename(&new''')
sub(E+'seal.rs','file.verify(&**place.disk)?;','if !cidstore_disk::mutant(20) { file.verify(&**place.disk)?; }')
sub(E+'maintain.rs','''                for file in claim.runs.iter().filter_map(|run| run.file.as_ref()) {
                    file.mark_obsolete();
                }
                Ok(rows)''','''                for file in claim.runs.iter().filter_map(|run| run.file.as_ref()) {
                    file.mark_obsolete();
                    if cidstore_disk::mutant(21) { let _ = self.disk.remove(&file.path); }
                }
                Ok(rows)''')
sub(W+'wal.rs','''let visible = self.log.last_seq().max(self.next_seq - 1);
        if''','''let visible = self.log.last_seq().max(self.next_seq - 1);
        if cidstore_disk::mutant(22) { self.synced_seq = visible; self.publish(); let done = self.active.file.sync_data(); return done.map(|()| visible).map_err(|error| self.latch(&error)); }
        if''')
