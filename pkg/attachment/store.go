package attachment

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
	"github.com/ip-masq/ip-masq-cni/pkg/plainfile"
)

// Store keeps one record per attachment in a directory that is lost at reboot, as the rules are. Records are written before
// the rules they describe and removed after them, so whatever a kill leaves behind can be found. Those of pods that the agent adopts are
// written after, because it finds these in the runtime's cache.
type Store struct {
	Dir string
}

const (
	recordSuffix   = ".json"
	setAsideSuffix = recordSuffix + ".unreadable"
)

// ErrUnreadable is in the error of a record whose content says nothing about an attachment: it is damaged, another owner's, or of
// an unknown format. A record that could just not be read has another error.
var ErrUnreadable = errors.New("unreadable attachment record")

// document is the content of a record.
type document struct {
	Version int `json:"version"`
	Attachment
}

// Put writes the record of a, replacing a former one of the same owner in one step.
func (s Store) Put(a Attachment) error {
	data, err := json.Marshal(document{FormatVersion, a})
	if err != nil {
		return fmt.Errorf("encode attachment record: %w", err)
	}
	return atomicfile.Write(s.path(a.ID()), data, 0o600)
}

// Get reads the record of an owner; the error is fs.ErrNotExist where there is none.
func (s Store) Get(id ID) (Attachment, error) {
	data, err := plainfile.Read(s.path(id))
	if err != nil {
		return Attachment{}, recordError(id, err)
	}
	return decode(id, data)
}

// recordError classifies why a record could not be read.
func recordError(id ID, err error) error {
	if errors.Is(err, syscall.EISDIR) {
		return fmt.Errorf("%w %s: %w", ErrUnreadable, id, err)
	}
	return fmt.Errorf("read attachment record: %w", err)
}

// Since returns when the record of an owner was written.
func (s Store) Since(id ID) (time.Time, error) {
	info, err := os.Stat(s.path(id))
	if err != nil {
		return time.Time{}, fmt.Errorf("look at attachment record: %w", err)
	}
	return info.ModTime(), nil
}

// Has reports whether an owner has a record, readable or not.
func (s Store) Has(id ID) bool {
	_, err := os.Lstat(s.path(id))
	return err == nil
}

// Delete removes the record of an owner, also one that was set aside; a missing one is no error.
func (s Store) Delete(id ID) error {
	for _, path := range []string{s.path(id), s.setAsidePath(id)} {
		if err := plainfile.Remove(path); err != nil {
			return fmt.Errorf("remove attachment record: %w", err)
		}
	}
	return nil
}

// List reads all records, in the order of their ids. Records that cannot be read come back in the error, joined, beside those
// that can: one broken file must not hide the others.
func (s Store) List() ([]Attachment, error) {
	ids, err := s.IDs()
	failures := []error{err}
	var all []Attachment
	for _, id := range ids {
		a, err := s.Get(id)
		switch {
		case err == nil:
			all = append(all, a)
		case !errors.Is(err, fs.ErrNotExist):
			failures = append(failures, err)
		}
	}
	return all, errors.Join(failures...)
}

// SetAside renames every unreadable record, so that it is found by a person and by no program, and returns one sentence for each.
// It also removes what writers left that were killed. Nobody may write records meanwhile.
func (s Store) SetAside() (sentences []string, err error) {
	ids, err := s.IDs()
	failures := []error{err}
	for _, id := range ids {
		_, err := s.Get(id)
		if !errors.Is(err, ErrUnreadable) {
			continue
		}
		sentences = append(sentences, fmt.Sprintf("%v; the file is %s now", err, s.setAsidePath(id)))
		if err := os.Rename(s.path(id), s.setAsidePath(id)); err != nil {
			failures = append(failures, fmt.Errorf("set a record aside: %w", err))
		}
	}
	atomicfile.Sweep(s.Dir)
	return sentences, errors.Join(failures...)
}

// IDs lists the owners that have a record, readable or not.
func (s Store) IDs() (ids []ID, err error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list attachment records: %w", err)
	}
	for _, entry := range entries {
		if id, isRecord := strings.CutSuffix(entry.Name(), recordSuffix); isRecord && ID(id).Valid() {
			ids = append(ids, ID(id))
		}
	}
	return ids, nil
}

func (s Store) path(id ID) string { return filepath.Join(s.Dir, string(id)+recordSuffix) }

func (s Store) setAsidePath(id ID) string { return filepath.Join(s.Dir, string(id)+setAsideSuffix) }

func decode(id ID, data []byte) (Attachment, error) {
	var d document
	err := json.Unmarshal(data, &d)
	if versionErr := CheckFormat(d.Version); versionErr != nil {
		err = versionErr // a newer format explains whatever else could not be read
	}
	if err == nil && d.ID() != id {
		err = fmt.Errorf("describes another owner, %s", d.ID())
	}
	if err != nil {
		return Attachment{}, fmt.Errorf("%w %s: %w", ErrUnreadable, id, err)
	}
	d.Addresses = Normalize(d.Addresses)
	return d.Attachment, nil
}
