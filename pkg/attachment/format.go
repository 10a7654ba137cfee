package attachment

import "fmt"

// FormatVersion is the version of the files that plugin and agent keep: records, policy.json and backend.json. It goes up
// with every change that an older release would misread.
const FormatVersion = 1

// CheckFormat refuses a file of an unknown version. Files that name none were written before versions were, in the first format.
func CheckFormat(version int) error {
	if version != 0 && version != FormatVersion {
		return fmt.Errorf("format version %d is not known to this release, which reads version %d", version, FormatVersion)
	}
	return nil
}
