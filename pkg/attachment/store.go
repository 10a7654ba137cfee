package attachment

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
)

// Store keeps one record per attachment in a directory that is lost at reboot, as the rules are. Records are written before
// the rules they describe and removed after them, so whatever a kill leaves behind can be found.
type Store struct {
	Dir string
}

const recordSuffix = ".json"

// Put writes the record of a, replacing a former one of the same owner in one step.
func (s Store) Put(a Attachment) error {
	data, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode attachment record: %w", err)
	}
	return atomicfile.Write(s.path(a.ID()), data, 0o600)
}

// Get reads the record of an owner; the error is fs.ErrNotExist where there is none.
func (s Store) Get(id ID) (Attachment, error) {
	data, err := os.ReadFile(s.path(id))
	if err != nil {
		return Attachment{}, fmt.Errorf("read attachment record: %w", err)
	}
	return decode(id, data)
}

// Delete removes the record of an owner; a missing one is no error.
func (s Store) Delete(id ID) error {
	if err := os.Remove(s.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove attachment record: %w", err)
	}
	return nil
}

// List reads all records, in the order of their ids. Records that cannot be decoded come back in the error, joined, beside
// those that can: one broken file must not hide the others.
func (s Store) List() ([]Attachment, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list attachment records: %w", err)
	}
	var all []Attachment
	var broken []error
	for _, entry := range entries {
		id := ID(strings.TrimSuffix(entry.Name(), recordSuffix))
		if !id.Valid() || !strings.HasSuffix(entry.Name(), recordSuffix) {
			continue
		}
		a, err := s.Get(id)
		switch {
		case err == nil:
			all = append(all, a)
		case !errors.Is(err, fs.ErrNotExist):
			broken = append(broken, err)
		}
	}
	return all, errors.Join(broken...)
}

func (s Store) path(id ID) string { return filepath.Join(s.Dir, string(id)+recordSuffix) }

func decode(id ID, data []byte) (Attachment, error) {
	var a Attachment
	if err := json.Unmarshal(data, &a); err != nil {
		return Attachment{}, fmt.Errorf("attachment record %s: %w", id, err)
	}
	if a.ID() != id {
		return Attachment{}, fmt.Errorf("attachment record %s: describes another owner, %s", id, a.ID())
	}
	a.Addresses = Normalize(a.Addresses)
	return a, nil
}
