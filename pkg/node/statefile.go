package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

// readList reads a list that the agent keeps in the state directory for the next one. One that is missing, damaged or of a newer release
// is none: each has to do without.
func readList(path string, document any, version *int) bool {
	data, err := os.ReadFile(path)
	return err == nil && json.Unmarshal(data, document) == nil && attachment.CheckFormat(*version) == nil
}

// writeList replaces such a list, or removes it where there is nothing to list.
func writeList(path string, document any, nothing bool) error {
	if nothing {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	data, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return atomicfile.Write(path, data, 0o600)
}
