/* Runs the signatures of a SavedModel from eight threads, with TensorFlow's C API and no Python.
 *
 * run_signatures EXPORT PLAN ANSWERS
 *
 * PLAN has the requests, as tests/serving/test_without_python.py writes them: int64 numbers, texts
 * and data with their length before them. Each thread runs all of them and writes what it was
 * answered to ANSWERS.0 ... ANSWERS.7 in the same form.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tensorflow/c/c_api.h>

enum { THREADS = 8, MOST = 16 };

typedef struct {
  int inputs, outputs;
  TF_Output in[MOST], out[MOST];
  TF_Tensor* values[MOST];
} Request;

typedef struct {
  int number;
  char file[4096];
} Thread;

static TF_Session* session;
static TF_Graph* graph;
static Request* requests;
static int request_count;

static void stop(const char* what, const char* why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void check(TF_Status* status, const char* what) {
  if (TF_GetCode(status) != TF_OK) stop(what, TF_Message(status));
}

static int64_t number(FILE* file) {
  int64_t value;
  if (fread(&value, sizeof value, 1, file) != 1) stop("plan", "cut short");
  return value;
}

static char* bytes(FILE* file, int64_t* size) {
  *size = number(file);
  char* data = calloc(*size + 1, 1);
  if (fread(data, 1, *size, file) != (size_t)*size) stop("plan", "cut short");
  return data;
}

static TF_Output place(FILE* file) {
  int64_t size;
  char* name = bytes(file, &size);
  TF_Output found = {TF_GraphOperationByName(graph, name), (int)number(file)};
  if (found.oper == NULL) stop(name, "no such operation");
  free(name);
  return found;
}

static TF_Tensor* read_tensor(FILE* file) {
  TF_DataType type = (TF_DataType)number(file);
  int64_t dims[MOST], elements = 1, size;
  int rank = (int)number(file);
  for (int i = 0; i < rank; ++i) elements *= dims[i] = number(file);
  if (type != TF_STRING) {
    char* data = bytes(file, &size);
    TF_Tensor* tensor = TF_AllocateTensor(type, dims, rank, size);
    memcpy(TF_TensorData(tensor), data, size);
    free(data);
    return tensor;
  }
  TF_Tensor* tensor = TF_AllocateTensor(type, dims, rank, elements * sizeof(TF_TString));
  TF_TString* texts = TF_TensorData(tensor);
  for (int64_t i = 0; i < elements; ++i) {
    char* data = bytes(file, &size);
    TF_StringInit(&texts[i]);
    TF_StringCopy(&texts[i], data, size);
    free(data);
  }
  return tensor;
}

static void write_number(FILE* file, int64_t value) { fwrite(&value, sizeof value, 1, file); }

static void write_tensor(FILE* file, const TF_Tensor* tensor) {
  int rank = TF_NumDims(tensor);
  int64_t elements = 1;
  write_number(file, TF_TensorType(tensor));
  write_number(file, rank);
  for (int i = 0; i < rank; ++i) {
    elements *= TF_Dim(tensor, i);
    write_number(file, TF_Dim(tensor, i));
  }
  if (TF_TensorType(tensor) != TF_STRING) {
    write_number(file, TF_TensorByteSize(tensor));
    fwrite(TF_TensorData(tensor), 1, TF_TensorByteSize(tensor), file);
    return;
  }
  const TF_TString* texts = TF_TensorData(tensor);
  for (int64_t i = 0; i < elements; ++i) {
    write_number(file, TF_StringGetSize(&texts[i]));
    fwrite(TF_StringGetDataPointer(&texts[i]), 1, TF_StringGetSize(&texts[i]), file);
  }
}

static void* run_all(void* argument) {
  Thread* thread = argument;
  FILE* file = fopen(thread->file, "wb");
  if (file == NULL) stop(thread->file, "can't be written");
  TF_Status* status = TF_NewStatus();
  for (int i = 0; i < request_count; ++i) {
    /* Each thread begins with another request, so that different ones meet. */
    int chosen = (i + thread->number) % request_count;
    Request* request = &requests[chosen];
    TF_Tensor* answers[MOST] = {NULL};
    TF_SessionRun(session, NULL, request->in, request->values, request->inputs, request->out,
                  answers, request->outputs, NULL, 0, NULL, status);
    check(status, "TF_SessionRun");
    write_number(file, chosen);
    for (int k = 0; k < request->outputs; ++k) {
      write_tensor(file, answers[k]);
      TF_DeleteTensor(answers[k]);
    }
  }
  TF_DeleteStatus(status);
  fclose(file);
  return NULL;
}

int main(int count, char** arguments) {
  if (count != 4) stop("usage", "run_signatures EXPORT PLAN ANSWERS");
  const char* tags[] = {"serve"};
  TF_Status* status = TF_NewStatus();
  TF_SessionOptions* options = TF_NewSessionOptions();
  graph = TF_NewGraph();
  session = TF_LoadSessionFromSavedModel(options, NULL, arguments[1], tags, 1, graph, NULL, status);
  check(status, "TF_LoadSessionFromSavedModel");

  FILE* plan = fopen(arguments[2], "rb");
  if (plan == NULL) stop(arguments[2], "can't be read");
  request_count = (int)number(plan);
  requests = calloc(request_count, sizeof *requests);
  for (int i = 0; i < request_count; ++i) {
    Request* request = &requests[i];
    request->inputs = (int)number(plan);
    for (int k = 0; k < request->inputs; ++k) {
      request->in[k] = place(plan);
      request->values[k] = read_tensor(plan);
    }
    request->outputs = (int)number(plan);
    for (int k = 0; k < request->outputs; ++k) request->out[k] = place(plan);
  }
  fclose(plan);

  pthread_t running[THREADS];
  Thread threads[THREADS];
  for (int i = 0; i < THREADS; ++i) {
    threads[i].number = i;
    snprintf(threads[i].file, sizeof threads[i].file, "%s.%d", arguments[3], i);
    if (pthread_create(&running[i], NULL, run_all, &threads[i])) stop("pthread_create", "failed");
  }
  for (int i = 0; i < THREADS; ++i) pthread_join(running[i], NULL);
  TF_CloseSession(session, status);
  check(status, "TF_CloseSession");
  printf("TensorFlow %s\n", TF_Version());
  return 0;
}
