package nodeaddr

// Parse is parse, for tests.
var Parse = parse
