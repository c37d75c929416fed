"""Versions, limits, error codes and the words a key may use."""

PREFIX = b"XMPP/1"
WIRE_MAJOR = 1
WIRE_MINOR = 3

# Limits. A header is small because pixels never travel in it; Jupyter's control channel and h11 cap theirs alike.
MAX_HEADER_BYTES = 64 * 1024
MAX_REPLY_BYTES = 2 * 1024 * 1024  # a SessionState of MAX_ARRAY_ITEMS keys is 1.7 MB; the server is trusted, so 2 MB
MAX_STRING_BYTES = 4096
MAX_ARRAY_ITEMS = 10_000
MAX_MAP_ITEMS = 256
MAX_INTEGER = 2**53  # whole numbers beyond are not exact everywhere, and overflow a database column
CHUNK_BYTES = 4 * 1024 * 1024  # measured: cancel stays under 11 ms while chunks of this size upload
MAX_PAYLOAD_BYTES = CHUNK_BYTES
MAX_WANTED_CHUNKS = 1000  # named in one UploadState
UPLOAD_CREDIT = 4  # chunks in flight per upload
EVENT_WINDOW = 64  # job events in flight before the client grants more
MAX_PLATES_PER_MESSAGE = 400  # keeps the header under MAX_HEADER_BYTES
MAX_SESSIONS_PER_MESSAGE = 200
MAX_OBJECT_ID = 255
MAX_FRAME_NUMBER = 10_000_000
MAX_SIDE = 16_384
MAX_THUMBNAIL_HEIGHT = 512
MAX_FILE_BYTES = 4 * 1024 * 1024 * 1024

# Error codes of an ErrorReply.
BAD_REQUEST = "bad_request"
UNSUPPORTED_VERSION = "unsupported_version"
NOT_FOUND = "not_found"
FORBIDDEN = "forbidden"
LIMIT_EXCEEDED = "limit_exceeded"
BAD_INPUT = "bad_input"
BUSY = "busy"
OUT_OF_MEMORY = "out_of_memory"
STORAGE_FULL = "storage_full"
ENGINE_DIED = "engine_died"
INTERNAL = "internal"

# What an annotation says of an object at its frame (DESIGN section 3). An object not named at all is *not given*.
PRESENT = "present"
ABSENT = "absent"
