/* A Triton backend whose only model gives back its input X as Y, so that the server's own time hides as
 * little as possible of a client's. The declarations are those of Triton's backend API, version 1. */
#include <stdint.h>
#include <string.h>

typedef struct TRITONSERVER_Error Error;
typedef struct TRITONBACKEND_Request Request;
typedef struct TRITONBACKEND_Response Response;
typedef struct TRITONBACKEND_Input Input;
typedef struct TRITONBACKEND_Output Output;
typedef struct TRITONBACKEND_ModelInstance Instance;
typedef int DataType;
typedef int MemoryType; /* 0: CPU */

enum { COMPLETE_FINAL = 1, RELEASE_ALL = 1 };

Error *TRITONBACKEND_RequestInputByIndex(Request *, uint32_t, Input **);
Error *TRITONBACKEND_RequestRelease(Request *, uint32_t);
Error *TRITONBACKEND_InputProperties(
    Input *, const char **, DataType *, const int64_t **, uint32_t *, uint64_t *, uint32_t *);
Error *TRITONBACKEND_InputBuffer(
    Input *, uint32_t, const void **, uint64_t *, MemoryType *, int64_t *);
Error *TRITONBACKEND_ResponseNew(Response **, Request *);
Error *TRITONBACKEND_ResponseOutput(
    Response *, Output **, const char *, DataType, const int64_t *, uint32_t);
Error *TRITONBACKEND_OutputBuffer(Output *, void **, uint64_t, MemoryType *, int64_t *);
Error *TRITONBACKEND_ResponseSend(Response *, uint32_t, Error *);

static Error *answer(Request *request, Response *response) {
  Input *input;
  Output *output;
  DataType type;
  const int64_t *shape;
  uint32_t axes, pieces;
  uint64_t size, length;
  const void *source;
  void *target;
  MemoryType memory = 0;
  int64_t device = 0;
  Error *error;
  if ((error = TRITONBACKEND_RequestInputByIndex(request, 0, &input))) return error;
  if ((error = TRITONBACKEND_InputProperties(input, 0, &type, &shape, &axes, &size, &pieces)))
    return error;
  if ((error = TRITONBACKEND_ResponseOutput(response, &output, "Y", type, shape, axes)))
    return error;
  if ((error = TRITONBACKEND_OutputBuffer(output, &target, size, &memory, &device))) return error;
  for (uint32_t n = 0; n < pieces; n++) {
    if ((error = TRITONBACKEND_InputBuffer(input, n, &source, &length, &memory, &device)))
      return error;
    memcpy(target, source, length);
    target = (char *)target + length;
  }
  return 0;
}

Error *TRITONBACKEND_ModelInstanceExecute(Instance *instance, Request **requests, uint32_t count) {
  (void)instance;
  for (uint32_t n = 0; n < count; n++) {
    Response *response;
    if (!TRITONBACKEND_ResponseNew(&response, requests[n]))
      TRITONBACKEND_ResponseSend(response, COMPLETE_FINAL, answer(requests[n], response));
    TRITONBACKEND_RequestRelease(requests[n], RELEASE_ALL);
  }
  return 0;
}
