package attachment

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/plainfile"
)

// Reader is a Store that is listed again and again, as by an agent with every pod that comes or goes: it reads only the records that
// changed since it last did. Any goroutine may list; what the lists share is not to be written to.
type Reader struct {
	Store

	mu    sync.Mutex
	known map[ID]*reading
	lists uint64
}

// reading is a record as it was read.
type reading struct {
	attachment Attachment
	file       identity
	settled    bool   // a later change shows in the identity
	list       uint64 // the last one that had it
}

// identity changes with every change of a file: writers replace records by others, so with the number of the file if not with its time.
type identity struct {
	inode, device uint64
	changed       unix.Timespec // of content, name or mode
	size          int64
}

// RacyTime is the age below which a file or directory may change again without its time showing it: a timer tick before Linux 6.13.
const RacyTime = 50 * time.Millisecond

// List is Store.List.
func (r *Reader) List() ([]Attachment, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids, err := r.IDs()
	failures := []error{err}
	if r.known == nil {
		r.known = make(map[ID]*reading, len(ids))
	}
	r.lists++
	all := make([]Attachment, 0, len(ids))
	for _, id := range ids {
		now, err := r.read(id)
		switch {
		case err == nil:
			now.list = r.lists
			all = append(all, now.attachment)
		case !errors.Is(err, fs.ErrNotExist):
			failures = append(failures, err)
		}
	}
	for id, former := range r.known {
		if former.list != r.lists {
			delete(r.known, id)
		}
	}
	return all, errors.Join(failures...)
}

// read returns what is known of a record where that is still true.
func (r *Reader) read(id ID) (*reading, error) {
	path := r.path(id)
	if former := r.known[id]; former != nil && former.settled {
		var now unix.Stat_t
		if unix.Lstat(path, &now) == nil && identityOf(&now) == former.file {
			return former, nil
		}
	}
	data, file, err := readIdentified(path)
	if err != nil {
		return nil, recordError(id, err)
	}
	a, err := decode(id, data)
	if err != nil {
		return nil, err
	}
	now := &reading{attachment: a, file: file, settled: time.Since(time.Unix(file.changed.Unix())) > RacyTime}
	r.known[id] = now
	return now, nil
}

// readIdentified reads a file, and tells which one it was.
func readIdentified(path string) ([]byte, identity, error) {
	file, err := plainfile.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return nil, identity{}, err
	}
	defer func() { _ = file.Close() }()
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		return nil, identity{}, fmt.Errorf("look at %s: %w", path, err)
	}
	data, err := io.ReadAll(file)
	return data, identityOf(&stat), err
}

func identityOf(stat *unix.Stat_t) identity {
	return identity{inode: stat.Ino, device: uint64(stat.Dev), changed: stat.Ctim, size: stat.Size} //nolint:unconvert // the type of Dev differs between architectures
}
